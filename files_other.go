//go:build !unix

package presence

func sessionsByFiles() int { return 100_000 }
