# make test is the one test command. The others are parts of it, and tools for daily work.

FUZZTIME  ?= 10s
BENCHTIME ?= 1s

.PHONY: test vet lint js fuzz bench-go

test:
	@scripts/check setup fmt vet lint imports js tests

vet:
	@scripts/check fmt vet

lint:
	@scripts/check lint imports

js:
	@scripts/check setup js

fuzz:
	@FUZZTIME=$(FUZZTIME) scripts/check fuzz

bench-go:
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./...
