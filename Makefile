# make test is the one test command. The others are parts of it, and tools for daily work.

FUZZTIME  ?= 10s
BENCHTIME ?= 300ms
COUNT     ?= 6

.PHONY: test test-faults vet lint js foreign fuzz bench bench-go

test:
	@scripts/check setup foreign fmt vet lint imports js tests

# What takes longer: a cluster of the example on a real Redis, broken in every way. About three minutes.
# CI runs it after make test.
test-faults:
	PRESENCE_FAULTS=1 go test -count=1 -v -timeout=30m ./chi_example/faults

vet:
	@scripts/check fmt vet

lint:
	@scripts/check lint imports

js:
	@scripts/check setup js

# The clients of others, from the npm registry.
foreign:
	@scripts/check setup foreign

fuzz:
	@FUZZTIME=$(FUZZTIME) scripts/check fuzz

# This package beside its peers, in ten minutes: the tables of docs/performance.md, and bench/plot.svg. bench/run.sh -quick takes two.
bench:
	bench/run.sh -v -budget 9m15s -plot plot.svg

# The benchmarks inside the process, for benchstat: make bench-go >new.txt. Half an hour on a machine of its own; COUNT=1 for less.
bench-go:
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) -count $(COUNT) -timeout 1h ./...
