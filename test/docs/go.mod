module github.com/criserver/criserver/test/docs

go 1.26.8

replace (
	github.com/criserver/criserver/test/harness => ../harness
	github.com/criserver/criserver/test/images => ../images
)

require (
	github.com/BurntSushi/toml v1.6.0
	github.com/criserver/criserver/test/harness v0.0.0
	github.com/criserver/criserver/test/images v0.0.0
	go.yaml.in/yaml/v3 v3.0.5
	golang.org/x/sys v0.49.0
	mvdan.cc/sh/v3 v3.14.0
)

require (
	github.com/google/go-containerregistry v0.22.1 // indirect
	github.com/klauspost/compress v1.19.2 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
	golang.org/x/sync v0.22.0 // indirect
)
