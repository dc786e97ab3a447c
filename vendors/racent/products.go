package racent

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/caddy-commercial/caddy-commercial/internal/vendorhttp"
	"github.com/caddy-commercial/caddy-commercial/vendors"
)

// brands are the spellings that productList accepts (observed).
var brands = []string{"Sectigo", "sslTrus", "Digicert", "Thawte", "Certum"}

// Products implements vendors.ProductLister. A brand that the account does not
// sell is left out.
func (o *Orders) Products(ctx context.Context) ([]vendors.Product, error) {
	var products []vendors.Product
	for _, brand := range brands {
		a, err := o.client.ProductList(ctx, brand)
		if err != nil {
			return nil, err
		}
		if a.Code == codeInput {
			continue
		}
		if a.Code != codeOK {
			return nil, o.client.failure("productList", vendorhttp.Read, a)
		}
		var list loose[[]productData]
		_ = json.Unmarshal(a.Data, &list)
		for _, p := range list.V {
			products = append(products, p.product())
		}
	}
	return products, nil
}

func (p productData) product() vendors.Product {
	maxNames, _ := strconv.Atoi(p.MaxDomain.Word()) // 0 means unknown
	product := vendors.Product{
		Code:       p.Code.Word(),
		Name:       p.Name.Word(),
		Validation: strings.ToLower(p.ValidationType.Word()),
		Wildcard:   strings.EqualFold(p.SupportWildcard.Word(), "Y"),
		MaxNames:   maxNames,
		Prices:     make(map[int]string),
	}
	for key, price := range p.Price.V.BasePrice.V {
		months, err := strconv.Atoi(strings.TrimPrefix(key, "price"))
		if err == nil && price != "" {
			product.Prices[months] = price.Word()
		}
	}
	return product
}
