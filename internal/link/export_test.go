package link

// Heard is what every read of a connection calls.
func (c *Conn) Heard() { c.heard() }
