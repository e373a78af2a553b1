#include "common/crypto/wiping_heap.h"
#include "orcactl/ctl.h"

int main(int argc, char **argv) {
  return ctl_main(argc, argv);
}
