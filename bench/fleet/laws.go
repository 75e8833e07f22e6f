package main

import (
	"maps"
	"slices"

	"github.com/mailweir/mailweir/bench/fleet/model"
	"github.com/mailweir/mailweir/bench/fleet/rival"
)

// lawMakers are the laws by name.
var lawMakers = map[string]model.Maker{
	"flowctl":        model.Flowctl,
	"aimd":           rival.AIMD,
	"aimd-no-linger": rival.AIMDNoLinger,
	"postfix":        rival.Postfix,
	"aws":            rival.AWS,
	"gradient2":      rival.Gradient2,
	"budget":         rival.Budget,
}

// everyLaw stands for those that belong to a trial.
const everyLaw = "all"

func lawNames() []string { return slices.Sorted(maps.Keys(lawMakers)) }
