"""The longer programs of the hostile corpus; see `hostile_cubes`. Words between @ are filled in by the test."""

PRELUDE = '''
import ctypes, errno, hashlib, json, shutil, signal, socket, stat, zlib

def attempt(action, *arguments):
    """What came of it: "done", or the name of the error."""
    try:
        action(*arguments)
    except socket.gaierror:
        return "no such name"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "done"

def tell(**facts):
    print("FACTS " + json.dumps(facts), flush=True)

def place(case):
    return f"{OUT}/{case}.nii.gz"

def bomb(path, start, gibibytes):
    """A small gzip file that begins with `start` and goes on with zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with open(path, "wb") as file:
        file.write(packer.compress(bytes(start)) + packer.flush(zlib.Z_FULL_FLUSH))
        zeros = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
        for _ in range(gibibytes << 10):
            file.write(zeros)

'''

NETWORK = """
    def connect(kind, where):
        with socket.socket(kind) as door:
            door.settimeout(2)
            door.connect(where)

    tell(
        address=attempt(connect, socket.AF_INET, ("127.0.0.1", @PORT@)),
        name=attempt(connect, socket.AF_INET, ("localhost", @PORT@)),
        namespace=attempt(connect, socket.AF_INET, ("127.0.0.1", @OTHERPORT@)),
        abstract=attempt(connect, socket.AF_UNIX, "\\0@MARK@"),
        in_data=attempt(connect, socket.AF_UNIX, f"{DATA}/{CASES[0]}/left.sock"),
        engine=attempt(connect, socket.AF_UNIX, "/var/run/docker.sock"),
        raw=attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        interfaces=sorted(os.listdir("/sys/class/net")),
    )
    for case in CASES: write(case)
"""

BURGLAR = """
    sizes, digests = set(@SIZES@), set(@DIGESTS@)
    found = []
    for root, names, files in os.walk("/"):
        names[:] = [name for name in names if f"{root}{name}" not in ("/proc", "/sys")]
        for path in (f"{root}/{name}" for name in files):
            if path.endswith("_seg.nii.gz"):
                found.append(path)
            elif os.path.isfile(path) and os.path.getsize(path) in sizes:
                with open(path, "rb") as file:
                    if hashlib.sha256(file.read()).hexdigest() in digests:
                        found.append(path)

    libc = ctypes.CDLL(None, use_errno=True)
    def call(name, *arguments):
        if getattr(libc, name)(*arguments) != 0:
            raise OSError(ctypes.get_errno(), name)

    image = f"{DATA}/{CASES[0]}/{CASES[0]}_brain_t1.nii.gz"
    secret = "@MARK@".encode()
    tell(
        references=found,
        processes=sorted(name for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid())),
        secret=secret in open("/proc/self/environ", "rb").read() + open("/proc/1/environ", "rb").read(),
        inputs=sorted({
            attempt(open, image, "r+b"), attempt(open, image, "ab"), attempt(os.unlink, image),
            attempt(os.rename, image, image + "x"), attempt(os.chmod, image, 0o777), attempt(os.utime, image),
            attempt(os.symlink, "/", f"{DATA}/link"), attempt(open, f"{DATA}/new", "w"),
            attempt(os.setxattr, image, "user.x", b"x"),
        } - {"EACCES"}),
        link_of_an_input=attempt(os.link, image, place(CASES[0])),
        device=attempt(os.mknod, f"{OUT}/disk", stat.S_IFBLK | 0o666, os.makedev(8, 0)),
        memory_device=attempt(os.mknod, "/tmp/mem", stat.S_IFCHR | 0o666, os.makedev(1, 1)),
        above=attempt(open, f"{OUT}/../escape", "w"),
        mount=attempt(call, "mount", b"none", b"/tmp", b"tmpfs", 0, None),
        namespaces=attempt(call, "unshare", 0x10000000),
        root=attempt(os.setuid, 0),
        kernel=attempt(open, "/proc/sys/kernel/core_pattern", "w"),
        killed_init=attempt(os.kill, 1, signal.SIGKILL),
        storage="/storage/predictions/" in open("/proc/self/mountinfo").read(),
    )
    for case in CASES: write(case)
"""

SURVIVOR = """
    for case in CASES: write(case)
    write("first", header(CASES[0])), write("second", header(CASES[0]), bytes(96 * 96 * 64))
    tell(whole=[hashlib.sha256(open(place(name), "rb").read()).hexdigest() for name in ("first", "second")])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open("/proc/self/comm", "w").write("@MARK@")
            while True:
                for name in ("second", "first"):
                    shutil.copy(place(name), f"{OUT}/next")
                    os.replace(f"{OUT}/next", place(CASES[0]))
        os._exit(0)
    time.sleep(0.5)
"""

GZIP = """
    bomb(place(CASES[0]), header(CASES[0]) + bytes(96 * 96 * 64), 4)
    import gzip
    with open(place(CASES[1]), "wb") as file:
        file.write(gzip.compress(bytes(header(CASES[1]))) + gzip.compress(b"") * 200000)
    with open(place(CASES[2]), "wb") as file:
        file.truncate(4 << 40)
"""

TMP = """
    def fill(folder):
        size = 0
        try:
            with open(f"{folder}/bomb", "wb", 0) as file:
                while size < 1 << 30:
                    size += file.write(bytes(1 << 20))
        except OSError as error:
            return [errno.errorcode[error.errno], size >> 20]

    tell(filled={folder: fill(folder) for folder in ("/tmp", "/var/tmp", "/dev/shm", "/scratch", "/project", "/")})
    for case in CASES: write(case)
"""

TERMINAL = """
    write(CASES[0])
    evil = "@EVIL@"
    print(evil, flush=True)
    os.write(1, b"\\xff\\xfe\\xc3" + b"x" * (5 << 20) + b"\\n")
    print(evil, "\\u202e\\x9b31m\\rerror: forged", file=sys.stderr)
    for name in (evil.encode(), b"\\xff\\n", b"..\\\\..\\\\escape.nii.gz", b"x" * 255):
        open(OUT.encode() + b"/" + name, "w").close()
    print(evil, flush=True)
    sys.exit(3)
"""

HEADERS = """
    head = header(CASES[0])
    struct.pack_into("<4h", head, 40, 3, 32767, 32767, 32767)
    struct.pack_into("<hh", head, 70, 64, 64)
    write(CASES[0], head, b"")
    head = header(CASES[1])
    head[348] = 1
    struct.pack_into("<f", head, 108, 384.0)
    bomb(place(CASES[1]), head + struct.pack("<ii", (1 << 31) - 16, 6), 4)
    head = header(CASES[2])
    struct.pack_into("<f", head, 108, 3e9)
    bomb(place(CASES[2]), head, 4)
"""

PICKLES = """
    import pickle
    class Evil:
        def __reduce__(self): return os.system, ("touch @TRAP@",)
    evil = pickle.dumps(Evil())
    array = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\\n"
    for path, content in ((place(CASES[0]), evil), (f"{OUT}/{CASES[2]}.pkl", evil), (f"{OUT}/results.yaml", evil),
                          (place(CASES[1]), b"\\x93NUMPY\\x01\\x00" + struct.pack("<H", 118) + array + evil)):
        with open(path, "wb") as file: file.write(content)
"""
