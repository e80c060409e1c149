package network

import (
	"encoding/json"
	"slices"
)

// Description describes the parts of the host that a network configuration uses.
type Description struct {
	Name    string
	Plugins []string // types of the plugins and of their IPAM plugins, in order
	Bridges []string // names of the bridges
	Subnets []string // address ranges, as configured
}

// Describe reads a configuration file with the rules of Reload.
func Describe(file string) (Description, error) {
	l, err := parse(file)
	if err != nil {
		return Description{}, err
	}
	d := Description{Name: l.conf.Name}
	for _, p := range l.conf.Plugins {
		d.add(p.Network.Type)
		var conf struct {
			Bridge string `json:"bridge"`
			IPAM   struct {
				Type   string `json:"type"`
				Subnet string `json:"subnet"`
				Ranges [][]struct {
					Subnet string `json:"subnet"`
				} `json:"ranges"`
			} `json:"ipam"`
		}
		if json.Unmarshal(p.Bytes, &conf) != nil {
			continue // the keys belong to the plugin, and can have another form
		}
		d.add(conf.IPAM.Type)
		if conf.Bridge != "" {
			d.Bridges = append(d.Bridges, conf.Bridge)
		}
		if conf.IPAM.Subnet != "" {
			d.Subnets = append(d.Subnets, conf.IPAM.Subnet)
		}
		for _, set := range conf.IPAM.Ranges {
			for _, r := range set {
				d.Subnets = append(d.Subnets, r.Subnet)
			}
		}
	}
	return d, nil
}

func (d *Description) add(plugin string) {
	if plugin != "" && !slices.Contains(d.Plugins, plugin) {
		d.Plugins = append(d.Plugins, plugin)
	}
}
