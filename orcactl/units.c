#include "orcactl/units.h"

/* The assembler takes a file in as it is; a NUL follows. */
#define FILE_TEXT(symbol, file)                                                                                                                      \
  __asm__(".pushsection .rodata\n.balign 8\n" #symbol ":\n.incbin \"deploy/systemd/" file "\"\n.byte 0\n.popsection\n");                             \
  extern const char symbol[] __attribute__((visibility("hidden")))

FILE_TEXT(unit_store, "orca-store.service");
FILE_TEXT(unit_apiserver, "orca-apiserver.service");
FILE_TEXT(unit_scheduler, "orca-scheduler.service");
FILE_TEXT(unit_agent, "orca-agent.service");
FILE_TEXT(unit_keeper, "orca-keeper.service");
FILE_TEXT(unit_proxy, "orca-proxy.service");
FILE_TEXT(unit_master, "orca-master.target");
FILE_TEXT(unit_worker, "orca-worker.target");
FILE_TEXT(unit_sysusers, "orca.sysusers");
FILE_TEXT(unit_tmpfiles, "orca.tmpfiles");

#define UNITS "/etc/systemd/system/"
const struct unit_file unit_files[] = {
    {"/etc/sysusers.d/orca.conf", unit_sysusers, false},    {"/etc/tmpfiles.d/orca.conf", unit_tmpfiles, false},
    {UNITS "orca-agent.service", unit_agent, false},        {UNITS "orca-keeper.service", unit_keeper, false},
    {UNITS "orca-proxy.service", unit_proxy, false},        {UNITS "orca-worker.target", unit_worker, false},
    {UNITS "orca-store.service", unit_store, true},         {UNITS "orca-apiserver.service", unit_apiserver, true},
    {UNITS "orca-scheduler.service", unit_scheduler, true}, {UNITS "orca-master.target", unit_master, true},
};
const size_t unit_file_count = sizeof unit_files / sizeof *unit_files;
