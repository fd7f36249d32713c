// Package compat holds tests only: every WebSocket library that presence promises to work under, unchanged, wrapped by Middleware.
//
// It is a module of its own, so that the users of presence never see these libraries. Each app in apps_test.go is what the library's own
// documentation shows, and TestAppsAlone runs them all without presence: a failure elsewhere is a difference that presence makes.
package compat
