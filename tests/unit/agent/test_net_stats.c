/* From a container's address to its interface and its counters, over files as the kernel shows them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <linux/if_bridge.h>

#include "orca-agent/net_stats.h"
#include "tests/lib/folder.h"

static const char arp[] = "IP address       HW type     Flags       HW address            Mask     Device\n"
                          "172.18.0.20      0x1         0x2         02:42:ac:12:00:14     *        br-1\n"
                          "172.18.0.2       0x1         0x2         aa:bb:cc:00:00:02     *        br-1\n"
                          "172.18.0.3       0x1         0x0         00:00:00:00:00:00     *        br-1\n";

static void finds_and_reads(void **state) {
  (void)state;
  char root[FOLDER_MAX], interface[IF_NAMESIZE];
  uint64_t rx, tx;
  struct __fdb_entry table[3] = {{.mac_addr = {0xaa, 0xbb, 0xcc, 0, 0, 2}, .port_no = 9, .is_local = 1},
                                 {.mac_addr = {0xaa, 0xbb, 0xcc, 0, 0, 2}, .port_no = 2},
                                 {.mac_addr = {0x02, 0x42, 172, 18, 0, 4}, .port_no = 3}};
  folder_make(root);
  folder_put_text(root, "net/arp", arp);
  folder_put(root, "class/net/br-1/brforward", table, sizeof table);
  folder_put_text(root, "class/net/br-1/brif/veth1/port_no", "0x1\n");
  folder_put_text(root, "class/net/br-1/brif/veth2/port_no", "0x2\n");
  folder_put_text(root, "class/net/br-1/brif/veth3/port_no", "0x3\n");
  folder_put_text(root, "class/net/eth0/address", "x\n");
  folder_put_text(root, "class/net/veth2/statistics/tx_bytes", "1000\n");
  folder_put_text(root, "class/net/veth2/statistics/rx_bytes", "200\n");
  assert_int_equal(net_stats_find(root, root, "172.18.0.2", interface), 0);
  assert_string_equal(interface, "veth2");
  assert_int_equal(net_stats_read(root, interface, &rx, &tx), 0);
  assert_int_equal(rx, 1000); /* what the host's end sent, the container received */
  assert_int_equal(tx, 200);
  assert_int_equal(net_stats_find(root, root, "172.18.0.4", interface), 0); /* not in arp: Docker's own MAC */
  assert_string_equal(interface, "veth3");
  assert_int_equal(net_stats_find(root, root, "172.18.0.9", interface), -1);
  assert_int_equal(net_stats_find(root, root, "", interface), -1);
  assert_int_equal(net_stats_find(root, root, "nonsense", interface), -1);
  assert_int_equal(net_stats_read(root, "veth9", &rx, &tx), -1);
  folder_remove(root);
}

static void parses(void **state) {
  (void)state;
  uint8_t mac[6];
  unsigned port;
  assert_int_equal(net_stats_arp(arp, "172.18.0.2", mac), 0);
  assert_memory_equal(mac, "\xaa\xbb\xcc\0\0\2", 6);
  assert_int_equal(net_stats_arp(arp, "172.18.0.20", mac), 0);
  assert_int_equal(net_stats_arp(arp, "172.18.0.3", mac), -1); /* incomplete */
  assert_int_equal(net_stats_arp(arp, "172.18.0", mac), -1);
  assert_int_equal(net_stats_arp("172.18.0.2 garbage\n172.18.0.2", "172.18.0.2", mac), -1);
  assert_int_equal(net_stats_arp("", "172.18.0.2", mac), -1);
  const uint8_t half[10] = {0};
  assert_int_equal(net_stats_fdb(half, sizeof half, mac, &port), -1);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(finds_and_reads), cmocka_unit_test(parses)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
