package proctest

import (
	"os/exec"
	"syscall"
)

// DieWithParent lets a command end with the test, also when that is killed.
func DieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
