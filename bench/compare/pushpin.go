package main

import (
	"context"

	"github.com/wscluster/wscluster/bench/lab"
)

var pushpinSystem = system{"pushpin", func(context.Context, *lab.Lab) (server, error) { return nil, errMissing }}
