package presence

import (
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// originAllowed says whether the page that asks may (RFC 6455 section 10.2).
// Without an Origin it is no page.
func (p *Presence) originAllowed(r *http.Request, patterns []string) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	if err == nil && u.Host != "" {
		if strings.EqualFold(u.Host, r.Host) {
			return true
		}
		for _, pattern := range patterns {
			if originMatches(pattern, u.Scheme, u.Host) {
				return true
			}
		}
	}
	if p.saidOrigin.Now() {
		p.log.Warn("presence: refused a page of another origin; see Route.OriginPatterns", "origin", cutText(origin), "host", r.Host,
			"cure", "if the page is yours, name its host in Route.OriginPatterns, or let the proxy that changed Host pass the client's")
	}
	return false
}

func originMatches(pattern, scheme, host string) bool {
	target := strings.ToLower(host)
	if strings.Contains(pattern, "://") {
		target = strings.ToLower(scheme) + "://" + target
	}
	ok, _ := path.Match(strings.ToLower(pattern), target)
	return ok
}

// allowsAny says whether a pattern names nobody: it matches a site that nobody
// can have meant (RFC 2606 section 2).
func allowsAny(pattern string) bool {
	const nobody = "presence-of-nobody.invalid"
	return originMatches(pattern, "https", nobody) || originMatches(pattern, "http", nobody)
}

// checkPattern says why a pattern can never match.
func checkPattern(pattern string) error {
	if _, err := path.Match(pattern, ""); err != nil {
		return err
	}
	_, host, found := strings.Cut(pattern, "://")
	if !found {
		host = pattern
	}
	if strings.Contains(host, "/") {
		return errors.New("an origin has no path")
	}
	return nil
}
