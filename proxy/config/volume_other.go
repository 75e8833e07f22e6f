//go:build !linux

package config

// statVolume knows nothing outside Linux: the journal then finds out by itself.
func statVolume(string) (volumeFacts, error) { return volumeFacts{writable: true}, nil }
