//go:build unix

package browser

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A browser is killed: the other one sees its user leave, and why.
func TestKilledBrowser(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		whole  bool
		causes []any
		words  string
	}{
		// The other processes of the browser see that and may still say goodbye (1001).
		{name: "its first process", causes: []any{"lost", "client-closed"}, words: "left: "},
		{name: "all of it", whole: true, causes: []any{"lost"}, words: "left: the connection broke"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, "-grace", "1s")
			ann := newBrowser(t).here(s, "ann")
			theirs := newProcess(t)
			theirs.here(s, "bob")
			ann.until(`state("bob") === "online"`)
			pid := theirs.pid()
			if test.whole {
				pid = -pid
			}
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			ann.until(`state("bob") === "none" && feed("leave", "bob").length === 1`)
			cause, err := ann.value(`cause("bob")`)
			require.NoError(t, err)
			require.Contains(t, test.causes, cause)
			ann.equal(true, `feed("leave", "bob")[0].textContent.includes(`+quote(test.words)+`)`)
		})
	}
}

// A browser freezes, as when a laptop lid is closed: no goodbye, and the kernel still acknowledges. The other one sees
// its user leave as silent. When it thaws, its page comes back by itself.
func TestFrozenBrowser(t *testing.T) {
	t.Parallel()
	s := serve(t, "-grace", "500ms", "-interval", "2s", "-timeout", "6s")
	ann := newBrowser(t).here(s, "ann")
	theirs := newProcess(t)
	bob := theirs.here(s, "bob")
	ann.until(`state("bob") === "online"`)
	require.NoError(t, syscall.Kill(-theirs.pid(), syscall.SIGSTOP))
	thaw := func() { _ = syscall.Kill(-theirs.pid(), syscall.SIGCONT) }
	t.Cleanup(thaw)
	ann.until(`state("bob") === "none" && cause("bob") === "silent"`)
	thaw()
	bob.until(`link() === "open" && text("cause").startsWith("Before: ") && live() && state("bob") === "online" && state("ann") === "online"`)
	ann.until(`state("bob") === "online" && feed("join", "bob").length >= 2`)
}

// ownGroup makes the command lead a process group.
func ownGroup(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
}
