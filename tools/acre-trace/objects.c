/* SPDX-License-Identifier: Apache-2.0 */
/*
 * objects.c - which files hold libacre's code, and where a probe in them is cheap.
 *
 * COST. A probe is a breakpoint. The kernel knows what a nop, a push and a jump do, and goes on
 * behind them; any other instruction it must step through in a page of its own, which makes 2.5 us
 * of 0.1. acre_alloc() and acre_free() begin with neither, and shall not have a nop for our sake.
 * But their first jump comes after a few instructions that only compute: there the arguments still
 * are where they were. The disassembler finds it, and whether that holds.
 */
#include "objects.h"

#include <capstone/capstone.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <gelf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROBE_PROVIDER "acre"
#define LIBRARY_NAME   "libacre.so.0"
#define LOOK_BYTES     96u /* of a function, for a cheap place */

/* ---- ELF ---- */

struct elf {
    int fd;
    Elf *elf;
};

static void elf_close(struct elf *e)
{
    if (e->elf)
        elf_end(e->elf);
    if (e->fd >= 0)
        close(e->fd);
}

static bool elf_open(struct elf *e, const char *path)
{
    (void)elf_version(EV_CURRENT);
    *e = (struct elf){.fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (e->fd >= 0)
        e->elf = elf_begin(e->fd, ELF_C_READ, NULL);
    if (e->elf && elf_kind(e->elf) == ELF_K_ELF)
        return true;
    elf_close(e);
    return false;
}

/* The next section of the type after `from` (NULL: the first). */
static Elf_Scn *next_section(Elf *elf, Elf_Scn *from, GElf_Word type, GElf_Shdr *ret_header)
{
    while ((from = elf_nextscn(elf, from)))
        if (gelf_getshdr(from, ret_header) && ret_header->sh_type == type)
            break;
    return from;
}

/* Three addresses of 8 bytes, then the provider's name. */
static bool is_our_note(const GElf_Nhdr *note, const char *name, const char *desc)
{
    return note->n_namesz == sizeof("stapsdt") && memcmp(name, "stapsdt", 8) == 0 &&
           note->n_descsz > 24 + sizeof(PROBE_PROVIDER) &&
           memcmp(desc + 24, PROBE_PROVIDER, sizeof(PROBE_PROVIDER)) == 0;
}

static bool has_our_notes(Elf *elf)
{
    GElf_Shdr header;
    GElf_Nhdr note;
    size_t name_off, desc_off;

    for (Elf_Scn *s = NULL; (s = next_section(elf, s, SHT_NOTE, &header));) {
        Elf_Data *data = elf_getdata(s, NULL);
        for (size_t off = 0, next;
             data && (next = gelf_getnote(data, off, &note, &name_off, &desc_off)) > 0; off = next)
            if (is_our_note(&note, (char *)data->d_buf + name_off, (char *)data->d_buf + desc_off))
                return true;
    }
    return false;
}

static bool find_symbol_in(Elf *elf, GElf_Word table, const char *function, GElf_Sym *ret_symbol)
{
    GElf_Shdr header;
    Elf_Scn *s = next_section(elf, NULL, table, &header);
    Elf_Data *data = s ? elf_getdata(s, NULL) : NULL;

    for (size_t i = 0; data && i < header.sh_size / header.sh_entsize; i++) {
        const char *name;
        if (gelf_getsym(data, (int)i, ret_symbol) &&
            GELF_ST_TYPE(ret_symbol->st_info) == STT_FUNC && ret_symbol->st_shndx != SHN_UNDEF &&
            (name = elf_strptr(elf, header.sh_link, ret_symbol->st_name)) &&
            strcmp(name, function) == 0)
            return true;
    }
    return false;
}

static bool file_offset(Elf *elf, GElf_Addr address, size_t *ret_off)
{
    size_t n = 0;
    GElf_Phdr p;

    (void)elf_getphdrnum(elf, &n);
    for (size_t i = 0; i < n; i++)
        if (gelf_getphdr(elf, (int)i, &p) && p.p_type == PT_LOAD && address >= p.p_vaddr &&
            address < p.p_vaddr + p.p_filesz) {
            *ret_off = address - p.p_vaddr + p.p_offset;
            return true;
        }
    return false;
}

/* ---- the cheap place ---- */

#ifdef __x86_64__
static bool touches_arguments(csh cs, const cs_insn *insn)
{
    cs_regs read, written;
    uint8_t n_read, n_written;

    if (cs_regs_access(cs, insn, read, &n_read, written, &n_written) != CS_ERR_OK)
        return true;
    for (uint8_t i = 0; i < n_written; i++)
        switch (written[i]) {
        case X86_REG_RDI:
        case X86_REG_EDI:
        case X86_REG_DI:
        case X86_REG_DIL:
        case X86_REG_RSI:
        case X86_REG_ESI:
        case X86_REG_SI:
        case X86_REG_SIL:
        case X86_REG_RSP:
        case X86_REG_ESP:
        case X86_REG_RBP:
        case X86_REG_EBP:
            return true;
        default:
            break;
        }
    return false;
}

/* Bytes from the start to the first jump, nop or push; 0 if something is in the way. */
static size_t cheap_place(const uint8_t *code, size_t n)
{
    size_t place = 0, off = 0;
    cs_insn *insns = NULL;
    csh cs;

    if (cs_open(CS_ARCH_X86, CS_MODE_64, &cs) != CS_ERR_OK)
        return 0;
    (void)cs_option(cs, CS_OPT_DETAIL, CS_OPT_ON);
    size_t n_insns = cs_disasm(cs, code, n, 0, 0, &insns);
    for (size_t i = 0; i < n_insns; off += insns[i++].size) {
        if (cs_insn_group(cs, &insns[i], X86_GRP_JUMP) || insns[i].id == X86_INS_NOP ||
            insns[i].id == X86_INS_PUSH) {
            place = off;
            break;
        }
        if (touches_arguments(cs, &insns[i]) || cs_insn_group(cs, &insns[i], X86_GRP_CALL) ||
            cs_insn_group(cs, &insns[i], X86_GRP_RET))
            break;
    }
    cs_free(insns, n_insns);
    cs_close(&cs);
    return place;
}
#else
static size_t cheap_place(const uint8_t *code, size_t n)
{
    (void)code;
    (void)n;
    return 0;
}
#endif

int object_probe_at(const struct object *object, const char *function, size_t *ret_file_off)
{
    struct elf e;
    GElf_Sym symbol;
    uint8_t code[LOOK_BYTES];
    int r = -ENOENT;

    if (!elf_open(&e, object->path))
        return -errno;
    if ((find_symbol_in(e.elf, SHT_SYMTAB, function, &symbol) ||
         find_symbol_in(e.elf, SHT_DYNSYM, function, &symbol)) &&
        file_offset(e.elf, symbol.st_value, ret_file_off)) {
        ssize_t n = pread(e.fd, code, MIN(sizeof(code), symbol.st_size), (off_t)*ret_file_off);
        *ret_file_off += n > 0 ? cheap_place(code, (size_t)n) : 0;
        r = 0;
    }
    elf_close(&e);
    return r;
}

/* ---- the list ---- */

bool objects_add(struct objects *objects, const char *path)
{
    struct stat st;
    struct elf e;

    if (objects->n == OBJECTS_MAX || stat(path, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    for (size_t i = 0; i < objects->n; i++)
        if (objects->list[i].device == st.st_dev && objects->list[i].inode == st.st_ino)
            return false;
    if (!elf_open(&e, path))
        return false;
    bool is_ours = has_our_notes(e.elf);
    elf_close(&e);
    if (!is_ours)
        return false;
    struct object *o = &objects->list[objects->n++];
    o->device = st.st_dev;
    o->inode = st.st_ino;
    (void)snprintf(o->path, sizeof(o->path), "%s", path);
    return true;
}

/* The file of an executable mapping, as this process can open it; false: there is none. */
static bool mapped_file(const char *line, pid_t pid, char path[static PATH_MAX])
{
    char access[5], name[PATH_MAX];

    return sscanf(line, "%*x-%*x %4s %*s %*s %*s %4095[^\n]", access, name) == 2 &&
           access[2] == 'x' && name[0] == '/' &&
           snprintf(path, PATH_MAX, "/proc/%d/root%s", (int)pid, name) < PATH_MAX;
}

/* In what it maps: has it a segment? */
static int look_at(pid_t pid, struct objects *add_to, bool *ret_has_segment)
{
    char maps[40], path[PATH_MAX], *line = NULL;
    size_t capacity = 0;

    (void)snprintf(maps, sizeof(maps), "/proc/%d/maps", (int)pid);
    FILE *f = fopen(maps, "re");
    if (!f)
        return -errno;
    *ret_has_segment = false;
    while (getline(&line, &capacity, f) > 0) {
        if (strstr(line, "/memfd:acre-"))
            *ret_has_segment = true;
        if (add_to && mapped_file(line, pid, path))
            (void)objects_add(add_to, path);
    }
    free(line);
    fclose(f);
    return 0;
}

int objects_add_process(struct objects *objects, pid_t pid)
{
    bool has_segment;

    return look_at(pid, objects, &has_segment);
}

void objects_add_default(struct objects *objects)
{
    char path[PATH_MAX];
    void *library = dlopen(LIBRARY_NAME, RTLD_LAZY);

    if (!library)
        return;
    if (dlinfo(library, RTLD_DI_ORIGIN, path) == 0) {
        size_t n = strlen(path);
        (void)snprintf(path + n, sizeof(path) - n, "/%s", LIBRARY_NAME);
        (void)objects_add(objects, path);
    }
}

void objects_add_all(struct objects *objects)
{
    DIR *proc = opendir("/proc");
    bool has_segment;

    for (struct dirent *d; proc && (d = readdir(proc));) {
        pid_t pid = (pid_t)strtol(d->d_name, NULL, 10);
        if (pid > 0 && look_at(pid, NULL, &has_segment) == 0 && has_segment)
            (void)objects_add_process(objects, pid);
    }
    if (proc)
        closedir(proc);
    objects_add_default(objects);
}
