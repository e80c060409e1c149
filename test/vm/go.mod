module github.com/criserver/criserver/test/vm

go 1.26.6

require golang.org/x/sys v0.49.0

require github.com/jstemmer/go-junit-report/v2 v2.1.0
