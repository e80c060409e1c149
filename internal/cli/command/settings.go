package command

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/criserver/criserver/config"
)

// SettingAnnotation marks the flags of configuration keys.
const SettingAnnotation = "criserver_setting"

// Settings contains the configuration that the flags of a command select: a configuration
// file, and a flag for each configuration key.
type Settings struct {
	file   string
	values map[string]string // configuration keys that are set on the command line
}

// AddFlags adds the flags to a command.
func (s *Settings) AddFlags(cmd *cobra.Command) {
	s.values = make(map[string]string)
	fs := cmd.Flags()
	fs.SortFlags = false // the order of the configuration file
	fs.StringVar(&s.file, "config", "", "main configuration `file`; drop-in files are FILE.d/*.toml (default "+config.DefaultFile+")")
	for _, key := range config.Keys() {
		// pflag would print a word between backquotes as the name of the value.
		usage := strings.ReplaceAll(config.Help(key), "`", "'")
		f := fs.VarPF(&settingFlag{key, s.values}, config.FlagName(key), "", usage)
		f.Annotations = map[string][]string{SettingAnnotation: {key}}
	}
}

// Load reads the files and applies the flags.
func (s *Settings) Load() (config.Config, error) {
	return config.Load(config.Source{File: s.file, Flags: s.values})
}

// settingFlag is the flag of a configuration key. config.Load checks the value, because a
// rule can depend on several keys.
type settingFlag struct {
	key    string
	values map[string]string
}

// String returns the value that the command line has set.
func (f *settingFlag) String() string {
	if f.values == nil { // the zero value, which package flag compares with
		return ""
	}
	return f.values[f.key]
}

// Set sets the value.
func (f *settingFlag) Set(value string) error {
	f.values[f.key] = value
	return nil
}

// Type returns the name of the value in the help.
func (*settingFlag) Type() string { return "value" }
