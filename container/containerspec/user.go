package containerspec

import (
	"math"
	"strconv"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxID is the largest uid and gid. 32-bit programs take larger ids for negative
// numbers, and the largest 32-bit number means "no id" to the kernel.
const maxID = math.MaxInt32

func validID(id int64) bool { return id >= 0 && id <= maxID }

// AccountRef names a user or a group, by id or by name.
type AccountRef struct {
	ID   uint32
	Name string // "" if ID is set
}

// String returns the reference as it stands in a request or in USER of an image.
func (r AccountRef) String() string {
	if r.Name != "" {
		return r.Name
	}
	return strconv.FormatUint(uint64(r.ID), 10)
}

// User is the user that the first process runs as.
type User struct {
	// Account is the user, or nil for USER of the image.
	Account *AccountRef
	// MustExist requires an entry in /etc/passwd of the image, also for an id.
	MustExist bool
	// Group is the primary group, or nil for the primary group of the account.
	Group              *AccountRef
	SupplementalGroups []uint32
	// MergeGroups adds the groups of which the account is a member in the image.
	MergeGroups bool
}

// user parses the user, the groups and the policy for supplemental groups.
func (p *parser) user() error {
	const field = "config.linux.security_context."
	sc := p.securityContext()
	byID, byName := sc.GetRunAsUser() != nil, sc.GetRunAsUsername() != ""
	switch {
	case byID && byName:
		return invalid("config.linux.security_context: run_as_user and run_as_username exclude each other")
	case sc.GetRunAsGroup() != nil && !byID && !byName:
		return invalid("config.linux.security_context: run_as_group needs run_as_user or run_as_username")
	case byID && !validID(sc.GetRunAsUser().GetValue()):
		return invalid(field+"run_as_user %d must be from 0 to %d", sc.GetRunAsUser().GetValue(), maxID)
	case sc.GetRunAsGroup() != nil && !validID(sc.GetRunAsGroup().GetValue()):
		return invalid(field+"run_as_group %d must be from 0 to %d", sc.GetRunAsGroup().GetValue(), maxID)
	case strings.Contains(sc.GetRunAsUsername(), ":"):
		return invalid(field+"run_as_username %q must not contain ':'", sc.GetRunAsUsername())
	}
	policy := sc.GetSupplementalGroupsPolicy()
	if policy != cri.SupplementalGroupsPolicy_Merge && policy != cri.SupplementalGroupsPolicy_Strict {
		return invalid(field+"supplemental_groups_policy %d is unknown", policy)
	}
	u := User{MustExist: byName, MergeGroups: policy == cri.SupplementalGroupsPolicy_Merge}
	if byID {
		u.Account = &AccountRef{ID: uint32(sc.GetRunAsUser().GetValue())} //nolint:gosec // The switch has checked the range.
	}
	if byName {
		account, err := parseAccount(sc.GetRunAsUsername())
		if err != nil {
			return invalid(field+"run_as_username: %v", err)
		}
		u.Account = &account
	}
	if g := sc.GetRunAsGroup(); g != nil {
		u.Group = &AccountRef{ID: uint32(g.GetValue())} //nolint:gosec // The switch has checked the range.
	}
	for i, g := range sc.GetSupplementalGroups() {
		if !validID(g) {
			return invalid(field+"supplemental_groups[%d] %d must be from 0 to %d", i, g, maxID)
		}
		u.SupplementalGroups = append(u.SupplementalGroups, uint32(g))
	}
	p.spec.User = u
	return nil
}

// withImage sets the account of a user that has none from USER of the image: a user,
// or a user and a group with a colon between them. An empty USER is root.
func (u User) withImage(imageUser string) (User, error) {
	if u.Account != nil {
		return u, nil
	}
	name, group, _ := strings.Cut(imageUser, ":")
	account, err := parseAccount(name)
	if err != nil {
		return u, err
	}
	u.Account = &account
	if group != "" {
		g, err := parseAccount(group)
		if err != nil {
			return u, err
		}
		u.Group = &g
	}
	return u, nil
}

// parseAccount takes a number for an id and never for a name, because the kubelet
// checks runAsNonRoot by the number. An empty text is id 0.
func parseAccount(s string) (AccountRef, error) {
	if s == "" {
		return AccountRef{}, nil
	}
	id, number, err := parseID(s)
	if err != nil {
		return AccountRef{}, err
	}
	if number {
		return AccountRef{ID: id}, nil
	}
	return AccountRef{Name: s}, nil
}

// parseID reports whether s is a number. A number that is out of range is an error, so
// that it does not wrap around to another id (CVE-2024-40635).
func parseID(s string) (id uint32, number bool, err error) {
	if strings.Trim(s, "0123456789") != "" && strings.Trim(s, "-0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || !validID(n) {
		return 0, true, invalid("id %q must be from 0 to %d", s, maxID)
	}
	return uint32(n), true, nil
}

// ImageUser is the user that USER of an image names: an id or a name. Both are unset
// if USER is empty.
type ImageUser struct {
	ID   int64
	IsID bool // ID is set and Name is ""
	Name string
}

// ParseImageUser parses USER of an image, which can have a group after a colon. It
// parses numbers in the same way as the creation of a container, so that runAsNonRoot,
// which the kubelet checks with this result, holds for the process. "+5" is a name. A
// number that is out of range is a name, too: no container runs with it.
func ParseImageUser(user string) ImageUser {
	user, _, _ = strings.Cut(user, ":")
	if user == "" {
		return ImageUser{}
	}
	if id, number, err := parseID(user); number && err == nil {
		return ImageUser{ID: int64(id), IsID: true}
	}
	return ImageUser{Name: user}
}
