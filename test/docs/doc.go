// Package docs contains the tests of the documentation: README.md and the pages in docs. The tests run the commands
// of the pages against a daemon, validate the commands that cannot run there, compare the quoted log messages with
// the source and with the messages of faults that the tests cause, and check paths and links.
//
// Every block of code on a page is fenced, and the first words after the fence say how the tests treat the block.
// docs/testing.md describes these words. A block without them is an error, so that no command is left out.
//
//	go test .            # as root, with bin/ and the test images: everything
//	go test -short .     # without root, bin/ and images: marks, messages, paths, links, syntax of files
//	go test -run 'TestRun/networking' .
package docs
