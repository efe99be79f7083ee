import Glibc
import Logging
import NetdevTesting

// Simulate SEEDS [--first SEED] [--world NAME] [--size FRAMES] [--without DISTURBANCE,…] [--trace LINES] [--part K/N] [--twice]
//
// Runs so many seeds, each in the world that it chooses, or all of them in one world. The first finding ends it, with status 1, or
// 70 where the process did not survive it; with --twice a seed that gives two traces is one. So is a clause of the rings that a
// thousand seeds in all worlds have not looked at.

// The order of sets and dictionaries is a part of the order of events.
if getenv("SWIFT_DETERMINISTIC_HASHING") == nil {
  setenv("SWIFT_DETERMINISTIC_HASHING", "1", 1)
  setenv("SWIFT_BACKTRACE", "enable=no", 1)
  execv("/proc/self/exe", CommandLine.unsafeArgv)
}

let options = Options(CommandLine.arguments.dropFirst())
// What devices say of their losses is no news here.
LoggingSystem.bootstrap { _ in SwiftLogNoOpLogHandler() }
CrashReport.install()
// Sockets' files have the same names in every run.
var folder = Array("/tmp/netdev-simulate-XXXXXX".utf8CString)
guard mkdtemp(&folder) != nil, chdir(folder) == 0 else { exit(71) }
let isClean = await Sweep(options).run()
Sweep.clean()
rmdir(folder)
exit(isClean ? 0 : 1)
