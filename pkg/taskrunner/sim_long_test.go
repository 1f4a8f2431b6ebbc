//go:build long

package taskrunner

func init() { *simSeeds = 2000 } // unless -sim.seeds tells another number
