package presence

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Shutdown refuses newcomers (503), sends every client elsewhere (1012 with
// the reason retry=<milliseconds>, random, at most DrainGrace/3), and waits
// until connections, serve functions and hooks have ended. The ends are spread
// over half of ctx's time, at most 10 s, or 5 s without a deadline, but never
// more than 100 ms apart. Users that come back on another node within
// DrainGrace never left. When ctx ends first, what is left is cut off and the
// error is ctx's. Calling again waits for the same and returns the same.
//
// Call it before http.Server.Shutdown, which neither closes nor awaits
// hijacked connections.
func (p *Presence) Shutdown(ctx context.Context) error {
	p.down.Do(func() {
		p.gate.Lock()
		p.draining = true
		p.gate.Unlock()
		go func() {
			p.downErr = p.shutdown(ctx)
			close(p.downDone)
		}()
	})
	select {
	case <-p.downDone:
		return p.downErr
	case <-ctx.Done():
	}
	// The first caller's context decides how long it takes, and it is over.
	select {
	case <-p.downDone:
		return p.downErr
	case <-time.After(cutOff):
		return ctx.Err()
	}
}

// closed is ErrClosed after Shutdown: a store of the app's goes on.
func (p *Presence) closed() error {
	select {
	case <-p.downDone:
		return ErrClosed
	default:
		return nil
	}
}

// cutOff is how long what is left may take after ctx has ended.
const cutOff = time.Second

func (p *Presence) shutdown(ctx context.Context) error {
	p.pending.Range(func(key, _ any) bool {
		if s := key.(*Session); s.marks.has(markEntered) { // the others do not come in any more
			s.end(p.shutdownEnd())
		}
		return true
	})
	p.drain(ctx)
	quiet := make(chan struct{})
	go func() {
		p.running.Wait()
		close(quiet)
	}()
	var err error
	select {
	case <-quiet:
	case <-ctx.Done():
		err = failed("shutdown", context.Cause(ctx))
		p.registry.all(func(s *Session) { s.end(p.shutdownEnd()) })
	}
	p.follows.close()
	p.mirrors.Close()
	if e := p.member.Close(ctx, p.opts.DrainGrace); e != nil && err == nil {
		err = failed("shutdown", e)
	}
	p.wheel.Stop()
	p.lotOnce.Do(func() {})
	if lot := p.lot.Load(); lot != nil {
		select {
		case <-quiet:
			lot.Close()
		default: // who was cut off still says goodbye
			go func() {
				<-quiet
				lot.Close()
			}()
		}
	}
	p.slow.Wait()
	if p.own {
		_ = p.store.Close()
	}
	return err
}

// drain ends the live sessions, paced, so that they do not all redial at once.
func (p *Presence) drain(ctx context.Context) {
	pace := 5 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		pace = min(time.Until(deadline)/2, 10*time.Second)
	}
	var all []*Session
	p.registry.all(func(s *Session) { all = append(all, s) })
	if len(all) == 0 {
		return
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	gap := min(pace/time.Duration(len(all)), 100*time.Millisecond)
	start := time.Now()
	for i, s := range all {
		if wait := time.Until(start.Add(time.Duration(i) * gap)); wait >= time.Millisecond {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
		s.end(p.shutdownEnd())
	}
}

func (p *Presence) shutdownEnd() End {
	retry := rand.Int64N(int64(p.opts.DrainGrace/3/time.Millisecond) + 1)
	return End{Cause: CauseShutdown, Code: codeShutdown, Text: fmt.Sprintf("retry=%d", retry)}
}
