package sock

// For the tests of older kernels, which cannot be had here.
var (
	ReceiveFullRule = receiveFull
	WindowUnknown   = uint32(windowUnknown)
)
