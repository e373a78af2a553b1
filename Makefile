# orca: every entry point. `make help` lists them.
#
# One pass, no recursion. Sources are found by where they lie:
#   common/**/*.c               build/libcommon.a      small libraries, linked where used
#   proto/*.proto               build/gen/proto/*.pb-c.[ch]
#   orca-NAME/*.c               build/orca-NAME.a (all but main.c) and build/bin/orca-NAME
#   orca-store/storectl/*.c     build/bin/orca-storectl
#   orcactl/*.c                 build/orcactl.a and build/bin/orcactl
#   tests/unit/NAME/test_*.c    build/tests/unit/NAME/test_*, linked with the folder's other sources and with orca-NAME.a where there is one
#   tests/tools/*.c             build/tests/*
#   tests/sim/NAME/*.c          build/tests/NAME-sim, linked with every daemon's archive
#   tests/bench/*.c             build/tests/bench/*
#   tests/fuzz/fuzz_*.c         build/fuzz/fuzz_* (clang's libFuzzer)
# Options: CC=clang, SAN=address,undefined (or thread) in a build folder of its own, COV=1 (counts lines; see make coverage), WERROR=1, V=1 (show commands),
# B=FOLDER (build elsewhere than in build/).

SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:

CC ?= cc
ifeq ($(origin CC),default)
CC := gcc
endif
WERROR ?= 0
SAN ?=
COV ?=
comma := ,
B := build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))$(if $(COV),/cov)$(if $(findstring clang,$(CC)),/clang)

DAEMONS := orca-store orca-apiserver orca-scheduler orca-agent orca-proxy orca-keeper
PROGRAMS := $(DAEMONS) orca-storectl orcactl

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wcast-qual -Wformat=2 -Wimplicit-fallthrough -Wvla
HARDEN := -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE
ifeq ($(SAN)$(COV),)
HARDEN += -D_FORTIFY_SOURCE=2 -fno-asynchronous-unwind-tables # nothing unwinds in C; debuggers have .debug_frame
# What is not asked thousands of times a second is made small instead of fast.
SMALL := $(addsuffix /%,orca-agent orca-keeper orca-scheduler orcactl orca-store/storectl $(addprefix common/,cron daemon doctor envfile spec tls toml))
endif
CPPFLAGS := -D_GNU_SOURCE -I. -I$(B)/gen
CFLAGS := -std=gnu17 -O2 -g -ffunction-sections -fdata-sections $(WARN) $(HARDEN)
LDFLAGS := -pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,pack-relative-relocs -Wl,--gc-sections -Wl,--as-needed
ifneq ($(filter 1,$(WERROR)),)
CFLAGS += -Werror
endif
ifneq ($(SAN),)
CFLAGS += -fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer -O1
LDFLAGS += -fsanitize=$(SAN)
endif
ifneq ($(COV),)
CFLAGS += --coverage -O0
LDFLAGS += --coverage
endif
LIBS := -lzmq -lprotobuf-c -llmdb -lcurl -lmicrohttpd -ljansson -lwslay -lsodium -lssl -lcrypto -lm -pthread
LLHTTP := /usr/share/llhttp
LLHTTP_CPPFLAGS := -isystem /usr/share/include/llhttp

Q := $(if $(V),,@)
say = $(if $(V),,@printf '%-5s %s\n' '$(1)' '$(patsubst $(B)/%,%,$@)')

.PHONY: all
all: $(PROGRAMS:%=$(B)/bin/%)

# ---------------------------------------------------------------- generated, third-party, common

PROTOS := $(wildcard proto/*.proto)
GEN_H := $(PROTOS:%.proto=$(B)/gen/%.pb-c.h)
GEN_O := $(PROTOS:%.proto=$(B)/gen/%.pb-c.o)

$(B)/gen/%.pb-c.h $(B)/gen/%.pb-c.c &: %.proto
	@mkdir -p $(B)/gen
	$(call say,GEN)
	$(Q)protoc-c --c_out=$(B)/gen $<

$(B)/gen/%.pb-c.o: $(B)/gen/%.pb-c.c $(GEN_H)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu17 -Os -g -ffunction-sections -fdata-sections $(HARDEN) $(if $(SAN),-fsanitize=$(SAN)) -c -o $@ $<

$(B)/llhttp/%.o: $(LLHTTP)/%.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) -DLLHTTP_STRICT_MODE=1 $(LLHTTP_CPPFLAGS) -std=gnu17 -O2 -g $(HARDEN) -w -c -o $@ $<

$(B)/%.o: %.c | $(GEN_H)
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS) $(LLHTTP_CPPFLAGS) $(CFLAGS) $(if $(filter $(SMALL),$<),-Os) -MMD -MP -c -o $@ $<

COMMON_C := $(wildcard common/*.c common/*/*.c)
COMMON_O := $(COMMON_C:%.c=$(B)/%.o) $(GEN_O) $(addprefix $(B)/llhttp/,llhttp.o api.o http.o)
$(B)/libcommon.a: $(COMMON_O)
	@rm -f $@
	$(call say,AR)
	$(Q)ar rcs $@ $^

# ---------------------------------------------------------------- programs

define PROGRAM
$(1)_C := $$(filter-out $(1)/main.c,$$(wildcard $(1)/*.c))
$(1)_O := $$($(1)_C:%.c=$$(B)/%.o)
$$(B)/$(1).a: $$($(1)_O)
	@rm -f $$@
	$$(call say,AR)
	$$(Q)ar rcs $$@ $$^
$$(B)/bin/$(1): $$(B)/$(1)/main.o $$(B)/$(1).a $$(B)/libcommon.a
	@mkdir -p $$(@D)
	$$(call say,LD)
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LIBS)
.PHONY: $(1)
$(1): $$(B)/bin/$(1)
OBJECTS += $$($(1)_O) $$(B)/$(1)/main.o
endef
$(foreach p,$(DAEMONS) orcactl,$(eval $(call PROGRAM,$(p))))

STORECTL_O := $(patsubst %.c,$(B)/%.o,$(wildcard orca-store/storectl/*.c))
$(B)/bin/orca-storectl: $(STORECTL_O) $(B)/orca-store.a $(B)/libcommon.a
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
.PHONY: orca-storectl
orca-storectl: $(B)/bin/orca-storectl
OBJECTS += $(COMMON_C:%.c=$(B)/%.o) $(STORECTL_O)

# ---------------------------------------------------------------- tests: units, tools, simulators, fuzzers

UNIT_C := $(wildcard tests/unit/*/test_*.c)
UNIT := $(UNIT_C:%.c=$(B)/%)
TEST_LIB_O := $(patsubst %.c,$(B)/%.o,$(wildcard tests/lib/*.c))
OBJECTS += $(TEST_LIB_O)
daemon_archive = $(if $(wildcard orca-$(1)/*.c),$(B)/orca-$(1).a,$(if $(filter orcactl,$(1)),$(B)/orcactl.a))
unit_area = $(word 3,$(subst /, ,$(1)))
UNIT_SHARED_C := $(filter-out $(UNIT_C),$(wildcard tests/unit/*/*.c))
OBJECTS += $(UNIT_SHARED_C:%.c=$(B)/%.o)
unit_shared = $(patsubst %.c,$(B)/%.o,$(filter tests/unit/$(1)/%,$(UNIT_SHARED_C)))

define UNIT_RULE
$(B)/$(basename $(1)): $(B)/$(basename $(1)).o $$(call unit_shared,$$(call unit_area,$(1))) $$(TEST_LIB_O) $$(call daemon_archive,$$(call unit_area,$(1))) $$(B)/libcommon.a
	$$(call say,LD)
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$^ -lcmocka $$(LIBS)
OBJECTS += $(B)/$(basename $(1)).o
endef
$(foreach t,$(UNIT_C),$(eval $(call UNIT_RULE,$(t))))

TOOL_C := $(wildcard tests/tools/*.c)
TOOLS := $(patsubst tests/tools/%.c,$(B)/tests/%,$(TOOL_C))
$(TOOLS): $(B)/tests/%: $(B)/tests/tools/%.o $(B)/libcommon.a
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
OBJECTS += $(TOOL_C:%.c=$(B)/%.o)

SIMS := $(patsubst tests/sim/%/,$(B)/tests/%-sim,$(sort $(dir $(wildcard tests/sim/*/*.c))))
define SIM_RULE
$(B)/tests/$(1)-sim: $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/$(1)/*.c)) $$(TEST_LIB_O) $$(DAEMONS:%=$$(B)/%.a) $$(B)/libcommon.a
	$$(call say,LD)
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LIBS)
OBJECTS += $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/$(1)/*.c))
endef
$(foreach s,$(patsubst $(B)/tests/%-sim,%,$(SIMS)),$(eval $(call SIM_RULE,$(s))))

BENCH_C := $(wildcard tests/bench/*.c)
BENCH := $(BENCH_C:%.c=$(B)/%)
$(BENCH): $(B)/tests/bench/%: $(B)/tests/bench/%.o $(B)/libcommon.a
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
OBJECTS += $(BENCH_C:%.c=$(B)/%.o)

# The same entry points without a fuzzer: each runs its corpus once, for coverage.
REPLAYS := $(patsubst tests/fuzz/%.c,$(B)/replay/%,$(wildcard tests/fuzz/fuzz_*.c))
define REPLAY_RULE
$(B)/replay/$(1): $(B)/tests/fuzz/$(1).o $(B)/tests/fuzz/replay.o $$(patsubst %,$(B)/%.a,$$(call fuzz_daemon,$(1))) $(B)/libcommon.a
	@mkdir -p $$(@D)
	$$(call say,LD)
	$$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LIBS)
endef

# A fuzzer of a daemon's (or orcactl's) parser is named fuzz_DAEMON_what.c and linked with that archive, built for fuzzing.
FUZZ_C := $(wildcard tests/fuzz/fuzz_*.c)
OBJECTS += $(FUZZ_C:%.c=$(B)/%.o) $(B)/tests/fuzz/replay.o
FUZZERS := $(patsubst tests/fuzz/%.c,$(B)/fuzz/%,$(FUZZ_C))
FUZZ_CFLAGS := -std=gnu17 -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -D_GNU_SOURCE -DORCA_FUZZ=1 -I. -I$(B)/gen $(LLHTTP_CPPFLAGS)
$(B)/fuzz/obj/%.o: %.c | $(GEN_H)
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)clang $(FUZZ_CFLAGS) -MMD -MP -c -o $@ $<
$(B)/fuzz/obj/gen/%.o: $(B)/gen/%.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)clang $(FUZZ_CFLAGS) -c -o $@ $<
$(B)/fuzz/obj/llhttp/%.o: $(LLHTTP)/%.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)clang $(FUZZ_CFLAGS) -DLLHTTP_STRICT_MODE=1 -w -c -o $@ $<
$(B)/fuzz/libcommon.a: $(COMMON_C:%.c=$(B)/fuzz/obj/%.o) $(PROTOS:%.proto=$(B)/fuzz/obj/gen/%.pb-c.o) $(addprefix $(B)/fuzz/obj/llhttp/,llhttp.o api.o http.o)
	@rm -f $@
	$(call say,AR)
	$(Q)ar rcs $@ $^
define FUZZ_ARCHIVE
$(B)/fuzz/$(1).a: $$($(1)_C:%.c=$(B)/fuzz/obj/%.o)
	@rm -f $$@
	$$(call say,AR)
	$$(Q)ar rcs $$@ $$^
endef
$(foreach p,$(DAEMONS) orcactl,$(eval $(call FUZZ_ARCHIVE,$(p))))
fuzz_daemon = $(filter $(DAEMONS) orcactl,orca-$(word 2,$(subst _, ,$(1))) $(word 2,$(subst _, ,$(1))))
$(foreach f,$(notdir $(REPLAYS)),$(eval $(call REPLAY_RULE,$(f))))
define FUZZ_RULE
$(B)/fuzz/$(1): $(B)/fuzz/obj/tests/fuzz/$(1).o $(patsubst %,$(B)/fuzz/%.a,$(call fuzz_daemon,$(1))) $(B)/fuzz/libcommon.a
	$$(call say,LD)
	$$(Q)clang -fsanitize=fuzzer,address,undefined -Wl,--as-needed -o $$@ $$^ $$(LIBS)
endef
$(foreach f,$(notdir $(FUZZERS)),$(eval $(call FUZZ_RULE,$(f))))

.PHONY: test-unit unit-tests tools sims fuzzers replays bench-tools
replays: $(REPLAYS)
tools: $(TOOLS)
sims: $(SIMS)
unit-tests: $(UNIT)
fuzzers: $(FUZZERS)
bench-tools: $(BENCH)

-include $(OBJECTS:.o=.d) $(OBJECTS:$(B)/%.o=$(B)/fuzz/obj/%.d) # what is built for fuzzing lies apart

# ---------------------------------------------------------------- running

.PHONY: help up down install clean deps-build
help:
	@printf '%s\n' \
	  'make              build everything into build/bin' \
	  'make up           install what is missing, build, start a one-node cluster in .run/, deploy examples/hello' \
	  'make down         end that cluster and remove what it made' \
	  'make test         install what is missing and pass every test (test-unit, test-integration, test-cluster, test-sim, test-sanitize, test-threads, test-fuzz)' \
	  'make bench        figures beside those of the peers, as a table and as JSON in build/bench/' \
	  'make fuzz TIME=60 every fuzzer for TIME seconds' \
	  'make coverage     lines that unit tests, simulation and corpus run, of parsers and cores, against what is asked of them' \
  'make soak MINUTES=30  deploys, kills, scales and rolls at random, with a model beside it' \
	  'make lint         clang-tidy, shellcheck, the rules of the house, the reference beside the table of keys' \
	  'make docs         docs/reference.md from the table of keys' \
	  'make fmt          clang-format' \
	  'make install DESTDIR=… PREFIX=…   programs, units, manual, completion, documents' \
	  'make deb          packages for Debian, in build/deb' \
	  'make test-cluster machines with systemd, as containers: the packages installed, restarted and upgraded under load' \
	  'make clean        remove build/'

deps-build:
	@deploy/local/deps build run

# The second make sees the libraries that the first has just installed.
up: deps-build
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@deploy/local/up

down:
	@deploy/local/down

# What lies where once it is installed; packages say otherwise where Debian does.
PREFIX ?= /usr
UNITDIR ?= $(PREFIX)/lib/systemd/system
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
DOCDIR ?= $(PREFIX)/share/doc/orca
UNITS := $(wildcard deploy/systemd/*.service deploy/systemd/*.target)
MANUALS := $(wildcard deploy/man/*.[1-8])
VERSION := $(shell sed -n 's/^\#define ORCA_VERSION "\(.*\)"/\1/p' common/daemon/daemon.h)

$(B)/orcactl/units.o: $(wildcard deploy/systemd/orca*)

$(B)/share/orcactl.1 $(B)/share/orcactl.bash $(B)/share/orcactl.zsh $(B)/share/orcactl.fish &: $(B)/bin/orcactl
	@mkdir -p $(B)/share
	$(call say,MAN)
	$(Q)$< --man >$(B)/share/orcactl.1
	$(Q)for shell in bash zsh fish; do $< completion $$shell >$(B)/share/orcactl.$$shell || exit; done

.PHONY: manuals
manuals: $(B)/share/orcactl.1

install: all manuals
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/orca $(DESTDIR)$(UNITDIR) $(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)$(PREFIX)/lib/tmpfiles.d \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(ZSHDIR) $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d $(DESTDIR)$(DOCDIR)
	install -m 0755 -s $(B)/bin/orcactl $(B)/bin/orca-storectl $(DESTDIR)$(PREFIX)/bin
	install -m 0755 -s $(DAEMONS:%=$(B)/bin/%) $(DESTDIR)$(PREFIX)/libexec/orca
	@for unit in $(UNITS); do sed 's#/usr/libexec/orca/#$(PREFIX)/libexec/orca/#' $$unit >$(B)/share/unit && install -m 0644 $(B)/share/unit $(DESTDIR)$(UNITDIR)/$${unit##*/} || exit; done
	install -m 0644 deploy/systemd/orca.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/orca.conf
	install -m 0644 deploy/systemd/orca.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/orca.conf
	@for page in $(MANUALS) $(B)/share/orcactl.1; do install -d $(DESTDIR)$(PREFIX)/share/man/man$${page##*.} && \
	  gzip -9nc $$page >$(B)/share/page && install -m 0644 $(B)/share/page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}.gz || exit; done
	install -m 0644 $(B)/share/orcactl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/orcactl
	install -m 0644 $(B)/share/orcactl.zsh $(DESTDIR)$(ZSHDIR)/_orcactl
	install -m 0644 $(B)/share/orcactl.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/orcactl.fish
	cp -r --no-preserve=mode,ownership README.md docs examples $(DESTDIR)$(DOCDIR)/

# Packages for Debian, in DEBDIR: orca-common, orca-master, orca-worker, orcactl.
DEB_REVISION ?= 1
DEBDIR ?= $(B)/deb
.PHONY: deb
deb: all manuals
	@deploy/local/deps deb
	@rm -rf $(DEBDIR) && mkdir -p $(DEBDIR)
	@$(MAKE) --no-print-directory install B=$(B) DESTDIR=$(abspath $(DEBDIR))/stage PREFIX=/usr UNITDIR=/lib/systemd/system ZSHDIR=/usr/share/zsh/vendor-completions DOCDIR=/usr/share/doc/orca-common >/dev/null
	@deploy/debian/build $(DEBDIR)/stage $(DEBDIR) $(VERSION) $(DEB_REVISION)
	@rm -rf $(DEBDIR)/stage

clean:
	rm -rf build

# ---------------------------------------------------------------- testing

.PHONY: coverage soak test test-unit test-integration test-cluster test-sim test-sanitize test-threads test-fuzz lint lint-tidy lint-shell lint-house lint-units lint-docs docs fmt fuzz bench

test:
	@deploy/local/deps test
	@tests/run all

test-unit: $(UNIT) $(TOOLS)
	@tests/lib/run-units $(UNIT)

test-integration test-cluster test-sim test-sanitize test-threads test-fuzz:
	@deploy/local/deps test
	@tests/run $(@:test-%=%)

.PHONY: print-units print-fuzzers
print-units:
	@echo $(UNIT)
print-fuzzers:
	@echo $(FUZZERS)

TIME ?= 60
fuzz: $(FUZZERS)
	@tests/lib/run-fuzzers $(TIME) $(FUZZERS)

coverage:
	@deploy/local/deps test
	@$(MAKE) --no-print-directory -j$$(nproc) COV=1 unit-tests sims replays >build/coverage.log 2>&1 || { tail -n 30 build/coverage.log; false; }
	@tests/lib/coverage

MINUTES ?= 30
soak: all
	@deploy/local/deps test
	@tests/run soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

fmt:
	clang-format -i $$(git ls-files '*.[ch]')

lint:
	@deploy/local/deps lint
	@$(MAKE) --no-print-directory -j$$(nproc) lint-house lint-shell lint-docs lint-units
	@$(MAKE) --no-print-directory lint-tidy
lint-units:
	@tests/lint/units deploy/systemd
lint-house:
	@python3 tests/lint/house.py
lint-shell:
	@grep -rlEI --exclude-dir=.git --exclude-dir=build --exclude-dir=.run '^#!.*\b(ba)?sh$$' . | xargs shellcheck
lint-docs: $(B)/tests/spec-reference
	@$< | diff -u docs/reference.md - || { echo 'docs/reference.md is not what the table of keys says: make docs' >&2; false; }
lint-tidy: $(GEN_H)
	@find common orca-* orcactl examples tests -name '*.c' -print0 | \
	  xargs -0 -n 4 -P $$(nproc) sh -c 'exec tests/lint/tidy "$$@" -- $(CPPFLAGS) $(LLHTTP_CPPFLAGS) -std=gnu17' tidy

docs: $(B)/tests/spec-reference
	@$< >docs/reference.md

bench: all $(BENCH) $(TOOLS)
	@deploy/local/deps bench
	@python3 tests/bench/run.py
