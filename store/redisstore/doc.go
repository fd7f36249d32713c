// Package redisstore keeps presence in Redis (7.0 or newer) or Valkey, so that
// many processes are one cluster.
package redisstore
