// Package client is a WebSocket client that survives: for command lines, bots
// and devices that talk to a server with package presence.
//
//	c, err := client.Dial(ctx, "wss://example.com/ws", client.Options{})
//	...
//	room := c.Follow("room:42")
//	go func() {
//		for e := range room.Events() {
//			fmt.Println(e.Kind, e.Member.User)
//		}
//	}()
//	for {
//		_, msg, err := c.Read(ctx)
//		...
//	}
//
// A connection that is lost is replaced by a new one, after a random wait that
// grows; what was followed, joined and set is asked for again. The server is
// watched: one that is silent for two heartbeat intervals is taken for dead.
// Close codes are obeyed, see docs/protocol.md. Only when the server says that
// there is no use in coming back does Read fail, with a *CloseError.
//
// Join, SetMeta and Follow need an endpoint that speaks presence.v1, see
// ErrNoPresence; all else works with any.
package client
