// melody: olahol/melody as in its README, PingPeriod and PongWait set, the rest default.
package main

import (
	"net/http"

	"github.com/a4cafe1a/presence/bench/srv"
	"github.com/olahol/melody"
)

func main() {
	srv.Start()
	m := melody.New()
	m.Config.PingPeriod = *srv.Interval
	m.Config.PongWait = *srv.Timeout
	m.HandleMessage(func(s *melody.Session, b []byte) {})
	srv.Serve(func(w http.ResponseWriter, r *http.Request) { m.HandleRequest(w, r) })
}
