/**
 * The numbers of the FUSE kernel protocol 7.45 (include/uapi/linux/fuse.h): opcodes, flags, struct sizes, and where
 * each field is, as plain constants so that the JIT folds them. Offsets are in 32-bit words from the start of the
 * struct (all structs are 8-aligned, and words are what message.ts reads); sizes are in bytes. Little-endian.
 */

export const KERNEL_MAJOR = 7;
/** the version of this code; the kernel's may be lower or higher */
export const KERNEL_MINOR = 45;

export const ROOT_NODE_ID = 1;

// ── opcodes ─────────────────────────────────────────────────────────────────────────────────────────────────────────

export const LOOKUP = 1;
export const FORGET = 2;
export const GETATTR = 3;
export const SETATTR = 4;
export const READLINK = 5;
export const SYMLINK = 6;
export const MKNOD = 8;
export const MKDIR = 9;
export const UNLINK = 10;
export const RMDIR = 11;
export const RENAME = 12;
export const LINK = 13;
export const OPEN = 14;
export const READ = 15;
export const WRITE = 16;
export const STATFS = 17;
export const RELEASE = 18;
export const FSYNC = 20;
export const SETXATTR = 21;
export const GETXATTR = 22;
export const LISTXATTR = 23;
export const REMOVEXATTR = 24;
export const FLUSH = 25;
export const INIT = 26;
export const OPENDIR = 27;
export const READDIR = 28;
export const RELEASEDIR = 29;
export const FSYNCDIR = 30;
export const ACCESS = 34;
export const CREATE = 35;
export const INTERRUPT = 36;
export const DESTROY = 38;
export const IOCTL = 39;
export const BATCH_FORGET = 42;
export const FALLOCATE = 43;
export const RENAME2 = 45;
export const LSEEK = 46;
export const SYNCFS = 50;
export const TMPFILE = 51;

// ── headers ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** fuse_in_header: len, opcode, unique u64, nodeid u64, uid, gid, pid, total_extlen u16 + padding */
export const IN_HEADER_SIZE = 40;
export const IN_LEN = 0;
export const IN_OPCODE = 1;
export const IN_UNIQUE = 2;
export const IN_NODE_ID = 4;
export const IN_PID = 8;
/** the first word behind the header */
export const IN_BODY = 10;

/** fuse_out_header: len, error (0 or −errno), unique u64 */
export const OUT_HEADER_SIZE = 16;
export const OUT_LEN = 0;
export const OUT_ERROR = 1;
export const OUT_UNIQUE = 2;
export const OUT_BODY = 4;

/** bit 63 of unique, in the upper word: the kernel sends this request again */
export const UNIQUE_RESEND_HIGH = 0x8000_0000;

// ── bodies of requests: size in bytes, then words from the start of the body ────────────────────────────────────────

export const FORGET_IN_SIZE = 8;
export const BATCH_FORGET_IN_SIZE = 8;
export const BATCH_FORGET_ONE_SIZE = 16;

export const GETATTR_IN_SIZE = 16;

export const SETATTR_IN_SIZE = 88;
export const SETATTR_VALID = 0;
export const SETATTR_SIZE = 4;
export const SETATTR_ATIME = 8;
export const SETATTR_MTIME = 10;
export const SETATTR_ATIME_NSEC = 14;
export const SETATTR_MTIME_NSEC = 15;
export const SETATTR_MODE = 17;
export const SETATTR_UID = 19;
export const SETATTR_GID = 20;

export const OPEN_IN_SIZE = 8;
export const OPEN_FLAGS = 0;

/** fuse_read_in and fuse_write_in have the same fields */
export const RW_IN_SIZE = 40;
export const RW_FH = 0;
export const RW_OFFSET = 2;
export const RW_SIZE = 4;
export const RW_FLAGS = 8;

export const RELEASE_IN_SIZE = 24;
export const RELEASE_FH = 0;

export const FSYNC_IN_SIZE = 16;
export const FSYNC_FH = 0;
export const FSYNC_FLAGS = 2;

export const FALLOCATE_IN_SIZE = 32;
export const FALLOCATE_OFFSET = 2;
export const FALLOCATE_LENGTH = 4;
export const FALLOCATE_MODE = 6;

export const LSEEK_IN_SIZE = 24;
export const LSEEK_OFFSET = 2;
export const LSEEK_WHENCE = 4;

export const IOCTL_IN_SIZE = 32;
export const IOCTL_CMD = 3;
export const IOCTL_OUT_SIZE = 7;

/** fuse_init_in without the later additions; fuse 7.36 and up send 64 bytes */
export const INIT_IN_SIZE = 16;
export const INIT_IN_EXT_SIZE = 64;
export const INIT_MAJOR = 0;
export const INIT_MINOR = 1;
export const INIT_MAX_READAHEAD = 2;
export const INIT_FLAGS = 3;
export const INIT_FLAGS2 = 4;

// ── bodies of replies ───────────────────────────────────────────────────────────────────────────────────────────────

/** fuse_attr */
export const ATTR_SIZE = 88;
export const ENTRY_OUT_SIZE = 128;
/** the attr's first word in fuse_entry_out and in fuse_attr_out */
export const ENTRY_ATTR = 10;
export const ATTR_OUT_SIZE = 104;
export const ATTR_OUT_ATTR = 4;
export const OPEN_OUT_SIZE = 16;
export const WRITE_OUT_SIZE = 8;
export const LSEEK_OUT_SIZE = 8;
export const STATFS_OUT_SIZE = 80;
export const STATFS_BLOCKS = 0;
export const STATFS_FILES = 6;
export const STATFS_BSIZE = 10;
export const STATFS_NAMELEN = 11;
export const STATFS_FRSIZE = 12;
export const IOCTL_OUT_HEADER_SIZE = 16;
export const INIT_OUT_SIZE = 64;
export const DIRENT_HEADER_SIZE = 24;

// ── flags ───────────────────────────────────────────────────────────────────────────────────────────────────────────

export const INIT_ASYNC_READ = 1 << 0;
export const INIT_BIG_WRITES = 1 << 5;
export const INIT_ASYNC_DIO = 1 << 15;
export const INIT_PARALLEL_DIROPS = 1 << 18;
export const INIT_ABORT_ERROR = 1 << 21;
export const INIT_MAX_PAGES = 1 << 22;
export const INIT_EXT = 1 << 30;
/** in flags2, from bit 32 on */
export const INIT2_PASSTHROUGH = 1 << (37 - 32);
export const INIT2_RESEND = 1 << (39 - 32);

export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_NOFLUSH = 1 << 5;
export const FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6;
export const FOPEN_PASSTHROUGH = 1 << 7;

export const FATTR_MODE = 1 << 0;
export const FATTR_UID = 1 << 1;
export const FATTR_GID = 1 << 2;
export const FATTR_SIZE = 1 << 3;
export const FATTR_ATIME = 1 << 4;
export const FATTR_MTIME = 1 << 5;
export const FATTR_ATIME_NOW = 1 << 7;
export const FATTR_MTIME_NOW = 1 << 8;

export const FSYNC_FDATASYNC = 1 << 0;

export const NOTIFY_RESEND = 7;

/** ioctl numbers of /dev/fuse */
export const FUSE_DEV_IOC_CLONE = 0x8004e500;
export const FUSE_DEV_IOC_BACKING_OPEN = 0x4010e501;
export const FUSE_DEV_IOC_BACKING_CLOSE = 0x4004e502;

// ── sizes that both sides must agree on ─────────────────────────────────────────────────────────────────────────────

/**
 * The largest write of one request, and the most data of a reply. A larger write comes as several requests, which
 * threads serve in parallel: 1 MiB writes at queue depth 1 are a quarter faster than as one request, and no depth is
 * slower. Smaller pieces cost deeper queues 8 %. The keeper tells the kernel this limit once for the life of the bus,
 * and a server's buffers must have room for it: never make it smaller, because running buses can be upgraded.
 */
export const MAX_WRITE = 512 << 10;
/**
 * One page more than a write has: if a client's buffer begins inside a page, the kernel would otherwise split a large
 * write in the middle of a sector, and two such writes could leave half a sector of each.
 */
export const MAX_PAGES = MAX_WRITE / 4096 + 1;
/**
 * A larger read comes as several requests of this size. Threads serve them in parallel, and the bytes are still in the
 * processor's cache when they are copied again: 1 MiB reads at queue depth 4 took 0.8 of the time of undivided ones.
 */
export const MAX_READ = 256 << 10;
