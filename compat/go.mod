module github.com/a4cafe1a/presence/compat

go 1.26.0

replace github.com/a4cafe1a/presence => ../

require (
	github.com/NYTimes/gziphandler v1.1.1
	github.com/a4cafe1a/presence v0.0.0
	github.com/coder/websocket v1.8.15
	github.com/felixge/httpsnoop v1.1.0
	github.com/go-chi/chi/v5 v5.5.0
	github.com/gobwas/ws v1.5.0
	github.com/gorilla/websocket v1.5.3
	github.com/labstack/echo/v5 v5.4.4
	github.com/lxzan/gws v1.8.9
	github.com/olahol/melody v1.1.4
	github.com/stretchr/testify v1.12.1
	golang.org/x/net v0.62.0
	nhooyr.io/websocket v1.8.17
)

require (
	github.com/dolthub/maphash v0.1.0 // indirect
	github.com/gobwas/httphead v0.1.0 // indirect
	github.com/klauspost/compress v1.17.9 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/time v0.15.0 // indirect
)
