// Package mirror keeps one copy of each subscribed topic and lets any number
// of subscribers read its changes.
//
// A topic somebody subscribes to has one feed of the store and one goroutine,
// however many subscribers it has. The goroutine folds what the feed returns
// over its copy and appends it as a chunk of events to a list that all
// subscribers read, each at its own pace and without a lock. A subscriber too
// far behind finds its place in the list cut off, and gets a Snapshot of the
// copy instead. So a slow subscriber costs the others nothing.
//
// When the feed was reset the members are read again, and the difference
// reaches subscribers as ordinary events.
package mirror
