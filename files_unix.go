//go:build unix

package presence

import "golang.org/x/sys/unix"

// sessionsByFiles leaves a tenth of the open files to the rest of the process.
func sessionsByFiles() int {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil || lim.Cur < 10 || lim.Cur > 1<<40 {
		return 100_000
	}
	return int(lim.Cur / 10 * 9)
}
