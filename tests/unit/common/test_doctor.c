/* What the doctor says of what was read: one case for each way in which a machine is not well, and hostile text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/doctor/probe.h"

static const struct doctor_finding *last(const struct doctor_report *r) {
  assert_true(r->count > 0);
  return &r->list[r->count - 1];
}

#define SAYS(report, is, part)                                                                                                                       \
  do {                                                                                                                                               \
    assert_int_equal(last(report)->level, is);                                                                                                       \
    if (!strstr(last(report)->text, part))                                                                                                           \
      fail_msg("\"%s\" is not in \"%s\"", part, last(report)->text);                                                                                 \
    assert_true((is) == DOCTOR_WELL ? !*last(report)->advice : *last(report)->advice != 0);                                                          \
  } while (0)

static void clocks(void **state) {
  (void)state;
  struct doctor_report r = {0};
  doctor_check_clock(&r, &(struct doctor_clock){.known = true, .synchronised = true, .error_us = 3000});
  SAYS(&r, DOCTOR_WELL, "within 3 ms");
  doctor_check_clock(&r, &(struct doctor_clock){.known = true});
  SAYS(&r, DOCTOR_WARNING, "not synchronised");
  size_t before = r.count;
  doctor_check_clock(&r, &(struct doctor_clock){0}); /* a unit may hide it */
  assert_int_equal(r.count, before);
  doctor_check_clock(&r, &(struct doctor_clock){.known = true, .synchronised = true, .error_us = 5000000});
  SAYS(&r, DOCTOR_WARNING, "5.0 s off");
  doctor_check_skew(&r, "n2", 20, 5);
  SAYS(&r, DOCTOR_WELL, "n2 agrees with the master's");
  doctor_check_skew(&r, "n2", -900, 5);
  SAYS(&r, DOCTOR_WARNING, "0.9 s behind");
  doctor_check_skew(&r, "n2", 3600000, 5);
  SAYS(&r, DOCTOR_WRONG, "3600.0 s ahead");
  doctor_check_skew(&r, "n2", 700, 600); /* the way there took as long */
  SAYS(&r, DOCTOR_WELL, "agrees with the master's");
  doctor_free(&r);
}

static void disks(void **state) {
  (void)state;
  struct doctor_report r = {0};
  const uint64_t gib = UINT64_C(1) << 30;
  doctor_check_disk(&r, "state folder",
                    &(struct doctor_disk){.path = "/x", .bytes = 100 * gib, .bytes_free = 60 * gib, .files = 100, .files_free = 90});
  SAYS(&r, DOCTOR_WELL, "40 % full, 60.0 GiB free");
  doctor_check_disk(&r, "state folder", &(struct doctor_disk){.path = "/x", .bytes = 100 * gib, .bytes_free = 10 * gib});
  SAYS(&r, DOCTOR_WARNING, "90 % full");
  doctor_check_disk(&r, "state folder", &(struct doctor_disk){.path = "/x", .bytes = 100 * gib, .bytes_free = 1 * gib});
  SAYS(&r, DOCTOR_WRONG, "99 % full");
  doctor_check_disk(&r, "state folder",
                    &(struct doctor_disk){.path = "/x", .bytes = 100 * gib, .bytes_free = 60 * gib, .files = 100, .files_free = 2});
  SAYS(&r, DOCTOR_WRONG, "98 % of its inodes");
  doctor_check_disk(&r, "state folder", &(struct doctor_disk){.path = "/x", .bytes = 100 * gib, .bytes_free = 60 * gib, .read_only = true});
  SAYS(&r, DOCTOR_WRONG, "read-only");
  doctor_check_disk(&r, "state folder", &(struct doctor_disk){.path = "/x", .error = ENOENT});
  SAYS(&r, DOCTOR_WARNING, "No such file");
  doctor_free(&r);
}

static void dockers(void **state) {
  (void)state;
  struct doctor_report r = {0};
  struct doctor_docker d = {.reachable = true,
                            .error = "",
                            .version = "20.10.24+dfsg1",
                            .api_version = "1.41",
                            .storage_driver = "overlay2",
                            .cgroup_driver = "systemd",
                            .log_driver = "json-file",
                            .root = "/var/lib/docker",
                            .memory_limit = true,
                            .cpu_quota = true,
                            .pids_limit = true};
  doctor_check_docker(&r, &d);
  for (size_t i = 0; i < r.count; i++)
    assert_int_equal(r.list[i].level, DOCTOR_WELL);
  doctor_free(&r);
  d.version = "19.03.1";
  d.api_version = "1.40";
  doctor_check_docker(&r, &d);
  assert_int_equal(r.list[0].level, DOCTOR_WRONG);
  assert_non_null(strstr(r.list[0].text, "needs 1.41"));
  d.api_version = "1.52";
  d.version = "not a version";
  d.storage_driver = "vfs";
  d.log_driver = "gelf";
  d.memory_limit = false;
  doctor_free(&r);
  doctor_check_docker(&r, &d);
  assert_int_equal(r.count, 4);
  size_t warnings = 0;
  for (size_t i = 0; i < r.count; i++)
    warnings += r.list[i].level == DOCTOR_WARNING;
  assert_int_equal(warnings, 3);
  SAYS(&r, DOCTOR_WARNING, "not limit memory");
  d.memory_limit = true;
  doctor_check_docker(&r, &d);
  SAYS(&r, DOCTOR_WELL, "driver `local`, for `orcactl logs`; Docker's default, gelf,"); /* it is not what orca's containers use */
  d.reachable = false;
  d.error = "permission denied\033[2J";
  doctor_check_docker(&r, &d);
  SAYS(&r, DOCTOR_WRONG, "permission denied?[2J");
  doctor_free(&r);
}

static void limits(void **state) {
  (void)state;
  struct doctor_report r = {0};
  doctor_check_files(&r, "the agent", 1024, 1048576);
  SAYS(&r, DOCTOR_WELL, "1048576");
  doctor_check_files(&r, "the agent", 1024, 4096);
  SAYS(&r, DOCTOR_WARNING, "4096");
  doctor_check_files(&r, "the agent", 256, 256);
  SAYS(&r, DOCTOR_WRONG, "256");
  doctor_check_cgroup(&r, 2, "cpuset cpu io memory hugetlb pids rdma misc\n");
  SAYS(&r, DOCTOR_WELL, "cgroup v2");
  doctor_check_cgroup(&r, 2, "cpuset cpu io pids\n");
  SAYS(&r, DOCTOR_WRONG, "without memory");
  doctor_check_cgroup(&r, 1, "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t60\t1\nmemory\t0\t64\t0\npids\t9\t60\t1\n");
  SAYS(&r, DOCTOR_WRONG, "cgroup v1 without memory");
  doctor_check_cgroup(&r, 1, "cpu\t3\t60\t1\ncpuacct\t3\t60\t1\nmemory\t5\t64\t1\npids\t9\t60\t1\n");
  SAYS(&r, DOCTOR_WELL, "cgroup v1");
  doctor_check_cgroup(&r, 1, "");
  SAYS(&r, DOCTOR_WRONG, "memory cpu pids");
  doctor_check_forward(&r, true, false);
  SAYS(&r, DOCTOR_WRONG, "ip_forward is off");
  doctor_check_forward(&r, true, true);
  SAYS(&r, DOCTOR_WELL, "forwards");
  doctor_free(&r);
}

static const char tcp[] = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
                          "   0: 00000000:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n"
                          "   1: 0100007F:1AE0 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n"
                          "   2: 0100007F:1AE0 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n"
                          "   3: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n";

static void sockets(void **state) {
  (void)state;
  struct doctor_report r = {0};
  struct doctor_socket list[16];
  size_t count = doctor_parse_sockets(tcp, false, list, 16);
  assert_int_equal(count, 3);
  assert_int_equal(list[0].port, 5432);
  assert_int_equal(list[1].port, 6880);
  assert_memory_equal(list[1].address, "\x7f\0\0\1", 4);
  count += doctor_parse_sockets("   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0\n", true,
                                list + 3, 13);
  assert_int_equal(count, 4);
  assert_int_equal(list[3].port, 8080);
  const struct doctor_port ports[] = {{"orca-apiserver", 6880, true, false}, {"orca-store", 6882, true, false}, {"shop/db.1", 5432, false, true}};
  doctor_check_sockets(&r, list, count, ports, 3, true);
  assert_int_equal(r.count, 4);
  assert_string_equal(r.list[0].text, "nobody listens on port 6882, where orca-store should");
  assert_string_equal(r.list[1].text, "port 5432, which shop/db.1 declares, is taken by somebody else");
  assert_int_equal(r.list[1].level, DOCTOR_WRONG);
  assert_string_equal(r.list[2].text, "1 of orca's and its services' ports are listened on");
  assert_string_equal(r.list[3].text, "not of orca, and reachable from outside: 0.0.0.0:22, [::]:8080");
  doctor_check_sockets(&r, NULL, 0, NULL, 0, false);
  SAYS(&r, DOCTOR_WARNING, "could not be read");
  doctor_free(&r);
  /* What is not a line of it is passed over, and room is kept. */
  assert_int_equal(doctor_parse_sockets("", false, list, 16), 0);
  assert_int_equal(doctor_parse_sockets("0: ZZZZZZZZ:1538 0:0 0A", false, list, 16), 0);
  assert_int_equal(doctor_parse_sockets("0: 00000000", false, list, 16), 0);
  assert_int_equal(doctor_parse_sockets("0: 00000000:15", true, list, 16), 0);
  assert_int_equal(doctor_parse_sockets(tcp, false, list, 1), 1);
}

static void keys_and_certificates(void **state) {
  (void)state;
  struct doctor_report r = {0};
  doctor_check_key(&r, &(struct doctor_key){.path = "/k/agent.key", .mode = 0400, .is_file = true}, 0);
  SAYS(&r, DOCTOR_WELL, "is private");
  doctor_check_key(&r, &(struct doctor_key){.path = "/k/agent.key", .mode = 0640, .is_file = true}, 0);
  SAYS(&r, DOCTOR_WRONG, "mode 0640");
  doctor_check_key(&r, &(struct doctor_key){.path = "/k/agent.key", .mode = 0400}, 0);
  SAYS(&r, DOCTOR_WRONG, "not a file");
  doctor_check_key(&r, &(struct doctor_key){.path = "/k/agent.key", .mode = 0400, .is_file = true, .owner = 7}, 8);
  SAYS(&r, DOCTOR_WARNING, "user 7");
  size_t before = r.count;
  doctor_check_key(&r, &(struct doctor_key){.path = "/k/agent.key", .error = ENOENT}, 0);
  assert_int_equal(r.count, before);
  doctor_check_certificate(&r, "the CA", 1000 + 30 * 86400, 1000, "");
  SAYS(&r, DOCTOR_WELL, "good for 30 days");
  doctor_check_certificate(&r, "the CA", 1000 + 3 * 86400, 1000, "");
  SAYS(&r, DOCTOR_WARNING, "good for 3 days");
  doctor_check_certificate(&r, "the CA", 1000, 1000 + 2 * 86400, "");
  SAYS(&r, DOCTOR_WRONG, "ended 2 days ago");
  doctor_check_certificate(&r, "the CA", 0, 1000, "it holds no certificate");
  SAYS(&r, DOCTOR_WRONG, "holds no certificate");
  doctor_free(&r);
}

static void stores(void **state) {
  (void)state;
  struct doctor_report r = {0};
  doctor_check_store(&r,
                     &(struct doctor_store){.reachable = true, .fault = "", .keys = 7, .db_used = 1 << 20, .revision = 10, .compact_revision = 3});
  SAYS(&r, DOCTOR_WELL, "7 keys, 1.0 MiB used");
  doctor_check_store(&r, &(struct doctor_store){.error = "timeout"});
  SAYS(&r, DOCTOR_WRONG, "does not answer: timeout");
  doctor_check_store(&r, &(struct doctor_store){.reachable = true, .fault = "disk full: writes are refused"});
  assert_int_equal(r.list[r.count - 2].level, DOCTOR_WRONG);
  doctor_check_store(&r, &(struct doctor_store){.reachable = true, .fault = "", .db_used = UINT64_C(8) << 30});
  SAYS(&r, DOCTOR_WARNING, "8192.0 MiB used");
  doctor_free(&r);
}

static void bounded(void **state) {
  (void)state;
  struct doctor_report r = {0};
  for (unsigned i = 0; i < 1000; i++)
    doctor_add(&r, DOCTOR_WRONG, "a check with a name that is far too long for its place", "advice", "%u", i);
  assert_int_equal(r.count, DOCTOR_MAX);
  doctor_free(&r);
  /* The real machine: nothing to assert but that it can be read. */
  doctor_look_at_cgroup(&r);
  doctor_look_at_forward(&r);
  doctor_look_at_files(&r, "this");
  doctor_look_at_sockets(&r, NULL, 0);
  doctor_look_at_pem(&r, "none", "/nonexistent", 0);
  doctor_look_at_pem(&r, "none", "/dev/null", 0);
  SAYS(&r, DOCTOR_WRONG, "holds no certificate");
  doctor_free(&r);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(clocks), cmocka_unit_test(disks),   cmocka_unit_test(dockers),
                                     cmocka_unit_test(limits), cmocka_unit_test(sockets), cmocka_unit_test(keys_and_certificates),
                                     cmocka_unit_test(stores), cmocka_unit_test(bounded)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
