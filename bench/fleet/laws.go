package main

import (
	"maps"
	"slices"

	"github.com/mailweir/mailweir/bench/fleet/model"
)

// lawMakers are the laws by name.
var lawMakers = map[string]model.Maker{
	"flowctl": model.Flowctl,
}

// everyLaw stands for those that belong to a trial.
const everyLaw = "all"

func lawNames() []string { return slices.Sorted(maps.Keys(lawMakers)) }
