// Package presence knows who is online.
//
// A web app keeps one WebSocket per browser tab. Clients vanish without a
// word: a lid closes, a cable is pulled, a phone leaves the network. The socket
// stays open, and the app shows a ghost. Package presence keeps every
// connection under heartbeat, closes the ones that fall silent, and lets any
// handler ask who is there.
//
//	p, err := presence.New(presence.Options{Identify: identify})
//	...
//	mux.Handle("GET /ws", p.Handler(func(ctx context.Context, c *presence.Conn) error {
//		for {
//			_, msg, err := c.Read(ctx) // heartbeats never show up here
//			if err != nil {
//				return err
//			}
//			...
//		}
//	}))
//	...
//	ok, err := p.Online(ctx, "ann")
//
// # Three ways to mount
//
// [Presence.Middleware] wraps handlers that upgrade with any library, without
// changing them. [Presence.Handler] upgrades with github.com/coder/websocket
// and calls a function per connection. [Presence.Callback] calls a function
// per message and holds no request meanwhile. [Presence.At] gives the same
// three with settings of their own, [Presence.Attach] takes a raw net.Conn, and
// [Presence.Open] a session without any connection.
//
// # Life of a session
//
// A session is one connection. It is pending from Identify on. After the
// upgrade the client has to prove that it is alive, by answering a ping or by
// sending anything, within VerifyTimeout. Then the session is live: local
// queries see it, the store is told, OnConnect is called, and the app gets the
// connection. It ends with its connection, whatever becomes of the handler.
// [End] says why, and the blocked Read of the library fails with it.
//
//	cause                     close frame              grace
//	client-closed             the client's             yes
//	lost                      none                     yes
//	silent                    none, a reset            yes
//	stalled, app-error        1011                     yes
//	slow                      1013                     yes
//	protocol-error            1002, 1007, 1009         yes
//	app-closed                the app's, 1000 for nil  yes
//	shutdown                  1012, retry=<ms>         DrainGrace
//	idle, expired             4408, 4401               no
//	kicked                    4403 or the app's        no
//	replaced, limit           4409, 4429               no
//
// A user whose last session ended with a grace stays a member, in state
// [Grace], until LeaveGrace is over. So a reload is no leave.
//
// # Heartbeats
//
// The server asks, the client answers. Any byte that arrives is life, and who
// was heard within HeartbeatInterval is not asked. A client is silent when
// nothing has arrived for HeartbeatTimeout and a heartbeat has been waiting
// for HeartbeatTimeout - HeartbeatInterval. A heartbeat behind data of the app
// waits from when that data was acknowledged: a slow download is no silence.
// Acknowledgements are known on Linux only. Elsewhere a client that needs
// longer than HeartbeatTimeout to take one message may be ended as silent.
//
// # What is logged
//
// Options.Logger gets these messages, all of which begin with "presence: ". A
// healthy node says the first two lines and nothing else above level debug. An
// asterisk: twice a minute at most, or once for each cause.
//
//	info   started
//	info   Options.Identify is nil: everybody is anonymous, a user of its own, unless a Route says who it is
//	warn   Route.OriginPatterns lets pages of any site connect, with the cookies of the visitor
//	warn*  another Presence wraps this one; upgrades are tracked by that one only
//	error* this http.ResponseWriter cannot be hijacked, so no WebSocket passes
//
//	warn*  no room: newcomers are refused
//	warn*  refused a page of another origin; see Route.OriginPatterns
//	warn*  a proxy took the upgrade out of a handshake
//	warn*  Identify returned what breaks a limit
//	warn*  a client offers presence.v1, and the handler in Middleware does not choose it: a browser lets no such connection open
//	error  Identify failed
//	error  ended by the app before the upgrade (setup of a Callback has sent more than may wait)
//	error  serve failed, Callbacks.Message failed
//	error  OnDisconnect panicked, Callbacks.Message panicked, Callbacks.Closed panicked, Authorize panicked
//
//	warn*  the store is away
//	info   the store is back (if the log said that it is away)
//	warn*  lease lost; the store is told of all sessions again
//	info*  the store asks for all sessions again, since it misses some
//	info*  the store holds: who is not found is unknown
//	info   the hold is over (if the log said that there is one)
//
//	debug  refused, not accepted, not verified: why a request has no session
//	debug  not authorized: what Options.Authorize refused
//	debug  session ended
//	debug  feed: a subscription waits for the store
//
// # Concurrency
//
// All methods of [Presence] and [Session] may be called concurrently. No
// goroutine and no timer is kept per connection by this package. Handler has
// the one that net/http started for the request.
package presence
