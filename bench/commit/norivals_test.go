//go:build commit && linux && !postfix

package commit

// rivals are measured with the build tag postfix.
func rivals() []server { return nil }
