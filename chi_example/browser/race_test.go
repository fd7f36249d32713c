//go:build race

package browser

// race: the example is built with the race detector, too.
const race = true
