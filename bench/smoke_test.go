// Package bench is tested by one tiny round, so that it does not rot. It measures nothing worth knowing.
package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/a4cafe1a/presence/internal/proctest"
	"github.com/stretchr/testify/require"
)

func TestTinyRound(t *testing.T) {
	bin := t.TempDir()
	out, err := exec.Command("go", "build", "-o", bin+"/", "./cmd/bench", "./cmd/client", "./cmd/presence", "./cmd/rawcoder").CombinedOutput()
	require.NoError(t, err, string(out))
	conf, err := filepath.Abs("servers.conf")
	require.NoError(t, err)
	for name, title := range map[string]string{"presence": `\*\*presence\*\*, parked \(Callback\)`, "rawcoder-tls": `coder v[0-9.]+, TLS`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			run := func(args ...string) string {
				cmd := exec.Command(filepath.Join(bin, "bench"), append(args, "-conf", conf, "-bin", bin, "-only", name)...)
				cmd.Dir = dir
				var said bytes.Buffer
				cmd.Stderr = &said
				out, err := cmd.Output()
				require.NoError(t, err, said.String())
				require.Empty(t, said.String())
				return string(out)
			}
			settings := []string{"-interval", "1s", "-timeout", "4s", "-window", "1s", "-silent", "0.1"}
			text := run(append(settings, "-n", "50", "-port", strconv.Itoa(proctest.FreePort(t)), "-plot", "plot.svg")...)
			require.Regexp(t, `\| `+title+` \| [1-9]`, text)
			require.Contains(t, text, `| 50 / 0 / 0 |`, "all connect, and none is lost")
			require.Contains(t, text, `| 5 of 5 |`, "the silent are closed")
			require.Equal(t, text, run(append(settings, "-report", "results.csv")...), "the file holds what the tables show")

			svg, err := os.ReadFile(filepath.Join(dir, "plot.svg"))
			require.NoError(t, err)
			d := xml.NewDecoder(bytes.NewReader(svg))
			for err == nil {
				_, err = d.Token()
			}
			require.True(t, errors.Is(err, io.EOF), err)
			require.Contains(t, string(svg), ">Bytes of RSS per connection<")
		})
	}
}
