package redisstore

import (
	_ "embed" // the scripts
	"strings"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/clock.lua
	clockLua string
	//go:embed lua/base.lua
	baseLua string
	//go:embed lua/user.lua
	userLua string

	//go:embed lua/register.lua
	registerLua string
	//go:embed lua/renew.lua
	renewLua string
	//go:embed lua/bell.lua
	bellLua string
	//go:embed lua/end.lua
	endLua string
	//go:embed lua/commit.lua
	commitLua string
	//go:embed lua/sweep.lua
	sweepLua string
	//go:embed lua/disconnect.lua
	disconnectLua string
	//go:embed lua/look.lua
	lookLua string
	//go:embed lua/count.lua
	countLua string
	//go:embed lua/members.lua
	membersLua string
	//go:embed lua/read.lua
	readLua string
	//go:embed lua/tail.lua
	tailLua string
)

// scripts are what a store runs. Each is one file behind what all begin with.
type scripts struct {
	register, renew, bell, end, commit, sweep, disconnect, look, count, members, read, tail *redis.Script
}

func newScripts(clock, user string) scripts {
	script := func(body string, parts ...string) *redis.Script {
		first, rest, _ := strings.Cut(body, "\n") // #!lua and its flags
		all := append(append([]string{first, clock, baseLua}, parts...), rest)
		return redis.NewScript(strings.Join(all, "\n"))
	}
	return scripts{
		register:   script(registerLua),
		renew:      script(renewLua),
		bell:       script(bellLua),
		end:        script(endLua),
		commit:     script(commitLua, user),
		sweep:      script(sweepLua, user),
		disconnect: script(disconnectLua, user),
		look:       script(lookLua),
		count:      script(countLua),
		members:    script(membersLua),
		read:       script(readLua),
		tail:       script(tailLua),
	}
}
