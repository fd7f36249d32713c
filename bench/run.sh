#!/bin/bash
# Builds everything and runs the bench; options go to cmd/bench (see ./run.sh -h).
#   ./run.sh                                  all of servers.conf, N=10000, 3 interleaved rounds
#   ./run.sh -n 10000,19000 -rounds 5 -only gorilla,nbio
#   ./run.sh -quick                           presence and three peers, N=2000, one round
#   ./run.sh -add 'mine | wspong | 1 | /path/mine -addr {addr} -interval {interval} -timeout {timeout}'
#   ./run.sh -report results.csv              only the tables of earlier runs
# -add may name a server that is also in -only, e.g. -only mine,gorilla.
set -e
cd "$(dirname "$0")"
ulimit -n "$(ulimit -Hn)"

mkdir -p bin
go build -o bin/ ./cmd/...
if [ "${1:-}" = -quick ]; then
	shift
	set -- -n 2000 -rounds 1 -only presence,presence-blocking,gws-sp,gorilla,rawcoder "$@"
fi
exec ./bin/bench "$@"
