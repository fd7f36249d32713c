// Package faults runs three nodes of the example and a Redis as processes,
// breaks them, and watches what users and subscribers are told meanwhile.
//
// The quick tests belong to every run. With PRESENCE_FAULTS=1 (make
// test-faults) all of them run.
package faults
