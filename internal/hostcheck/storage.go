package hostcheck

import "golang.org/x/sys/unix"

const (
	gib = 1 << 30
	mib = 1 << 20
)

// fileSystem returns the file system on which a directory is or will be.
func (c *checker) fileSystem(dir string) (FileSystem, bool) {
	dir = c.host.existingParent(dir)
	fs, err := c.host.Kernel.FileSystem(c.host.path(dir))
	if err != nil {
		c.report("storage.unreadable", "%s cannot be read: %v", dir, err)
		return fs, false
	}
	return fs, true
}

// unsuitable are file systems on which overlay has no writable layers.
var unsuitable = map[int64]string{
	unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "NFS", unix.MSDOS_SUPER_MAGIC: "FAT",
	unix.V9FS_MAGIC: "9p", unix.CIFS_SUPER_MAGIC: "CIFS", unix.SMB2_SUPER_MAGIC: "SMB", unix.ECRYPTFS_SUPER_MAGIC: "eCryptfs",
}

func checkStoreFileSystem(c *checker) {
	fs, ok := c.fileSystem(c.Root)
	if !ok {
		return
	}
	if name := unsuitable[uint32Magic(fs.Type)]; name != "" {
		c.report("storage.filesystem", "root %s is on a file system of the type %s", c.Root, name)
		return
	}
	if fs.NoTypes {
		c.report("storage.d_type", "the directories of the file system of root %s have no types of entries (d_type)", c.Root)
	}
	if uint32Magic(fs.Type) == unix.TMPFS_MAGIC {
		c.report("storage.volatile", "root %s is on tmpfs", c.Root)
	}
}

// uint32Magic returns a magic number as an unsigned number of 32 bits, because statfs(2) extends
// the sign on some architectures.
func uint32Magic(t int64) int64 { return int64(uint32(t)) }

func checkRunDir(c *checker) {
	fs, ok := c.fileSystem(c.RunDir)
	if !ok {
		return
	}
	if t := uint32Magic(fs.Type); t != unix.TMPFS_MAGIC && t != unix.RAMFS_MAGIC {
		c.report("storage.run_dir", "run_dir %s is not on tmpfs", c.RunDir)
	}
	if fs.Bytes > 0 && fs.FreeBytes < 64*mib {
		c.report("storage.run_dir_space", "the file system of run_dir %s has %d MiB left", c.RunDir, fs.FreeBytes/mib)
	}
	if fs.Inodes > 0 && fs.FreeNodes < 10_000 {
		c.report("storage.run_dir_space", "the file system of run_dir %s has %d inodes left", c.RunDir, fs.FreeNodes)
	}
}

// checkSpace compares the free space with the default thresholds of the kubelet: imagefs.available
// 15 %, and imagefs.inodesFree 5 %.
func checkSpace(c *checker) {
	fs, ok := c.fileSystem(c.Root)
	if !ok || fs.Bytes == 0 {
		return
	}
	percent := func(part, all uint64) float64 { return 100 * float64(part) / float64(all) }
	switch free := percent(fs.FreeBytes, fs.Bytes); {
	case fs.FreeBytes < gib:
		c.report("storage.full", "the file system of root %s has %d MiB left", c.Root, fs.FreeBytes/mib)
	case free < 15:
		c.report("storage.space", "the file system of root %s has %.1f %% left", c.Root, free)
	}
	if fs.Inodes == 0 {
		return // as on btrfs
	}
	if free := percent(fs.FreeNodes, fs.Inodes); free < 5 {
		c.report("storage.inodes", "the file system of root %s has %.1f %% of its inodes left", c.Root, free)
	}
}
