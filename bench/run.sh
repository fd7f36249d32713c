#!/bin/bash
# Builds everything and runs cmd/bench with the options given; bin/bench -h tells them after the first run.
#   ./run.sh                                  all of servers.conf, N = 10,000, one round: ten minutes
#   ./run.sh -quick                           the servers that targets name, N = 2,000: two minutes
#   ./run.sh -growth                          presence with 1,000 to 19,000 connections: four minutes
#   ./run.sh -rounds 3 -only presence,gws-sp,rawcoder
#   ./run.sh -add 'mine | mine | wspong | 0 | /path/mine -addr {addr} -interval {interval} -timeout {timeout}' -only mine,gorilla
#   ./run.sh -report results.csv              only the tables of earlier runs
set -e
cd "$(dirname "$0")"
ulimit -n "$(ulimit -Hn)"
mkdir -p bin
go build -o bin/ ./cmd/...
exec ./bin/bench "$@"
