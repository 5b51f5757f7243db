package keeper

import (
	"context"

	"drover/driver"
)

func (k *keeper) work(ctx context.Context, gone <-chan struct{}) driver.Exit {
	return driver.Exit{}
}
func (k *keeper) workDefaults() driver.Process { return driver.Process{} }
