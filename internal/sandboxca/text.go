package sandboxca

import (
	"encoding/json"
	"fmt"
)

// Money is an amount of cents as a JSON number with two decimals.
func Money(cents int64) json.Number {
	return json.Number(fmt.Sprintf("%d.%02d", cents/100, cents%100))
}
