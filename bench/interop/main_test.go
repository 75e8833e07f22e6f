//go:build postfix

package interop

import (
	"testing"

	"github.com/mailweir/mailweir/bench/rig"
)

// binary is the path of the mailweir under test.
var binary string

func TestMain(m *testing.M) { rig.Main(m, &binary, rig.NeedsPostfix) }

func scratch(t *testing.T) string { return rig.Scratch(t, "") }
