// Package browser has no code of its own. Its tests start the example as a
// process and look at its page in headless Chromium. They need a command named
// chromium or chromium-browser: without it they are skipped, and fail in CI.
//
// The example is built by the tests, which the test cache does not know of:
// run them with go test -count=1.
package browser
