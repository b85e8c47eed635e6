/* The functions that touch every octet: twins of checksums.py, segments.py and runs.py, which say what they promise.
 *
 * Rules of this file
 *   1. The same octets as the twin, for any input whatever (tests/property/test_tunnel.py).
 *   2. Nothing is read or written without its bounds having been checked on the way there; every such check is named in
 *      the comment of the function that relies on it.
 *   3. Only the limited API: one build serves Python 3.11 and all later ones.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

typedef const uint8_t *octets;

enum {
    VNET = 10, IPV4 = 20, IPV6 = 40, TCP = 20, UDP = 8,
    MAX_PACKET = 65535, MAX_DATAGRAM = 65507, MOST_SEGMENTS = 64,
    PROTOCOL_TCP = 6, PROTOCOL_UDP = 17,
    GSO_TCPV4 = 1, GSO_TCPV6 = 4, GSO_UDP = 5, GSO_ECN = 0x80, NEEDS_CHECKSUM = 1,
    FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32, CWR = 128,
    ALONE = FIN | SYN | RST | URG | CWR,
    FRAGMENT = 0x3fff,
};

static uint32_t get16(octets p) { return (uint32_t)p[0] << 8 | p[1]; }
static uint32_t get32(octets p) { return get16(p) << 16 | get16(p + 2); }
static void put16(uint8_t *p, uint32_t value) { p[0] = (uint8_t)(value >> 8); p[1] = (uint8_t)value; }
static void put32(uint8_t *p, uint32_t value) { put16(p, value >> 16); put16(p + 2, value); }

/* The words of data added up in ones' complement: 0 only if all of them are. */
static uint32_t sum(octets data, size_t size)
{
    /* The order of octets does not matter for adding, only for reading the result (RFC 1071 2B). */
    uint64_t a = 0, b = 0;
    uint32_t words[4];
    for (; size >= sizeof words; data += sizeof words, size -= sizeof words) {
        memcpy(words, data, sizeof words);
        a += (uint64_t)words[0] + words[1];
        b += (uint64_t)words[2] + words[3];
    }
    uint16_t word;
    for (; size >= sizeof word; data += sizeof word, size -= sizeof word) {
        memcpy(&word, data, sizeof word);
        a += word;
    }
    if (size) {
        uint8_t padded[2] = {*data, 0};
        memcpy(&word, padded, sizeof word);
        a += word;
    }
    /* b and a are below 2^62 for anything that fits into memory; folded first, their sum cannot overflow. */
    a = (a & 0xffffffff) + (a >> 32) + (b & 0xffffffff) + (b >> 32);
    while (a >> 16)
        a = (a & 0xffff) + (a >> 16);
    word = (uint16_t)a;
    uint8_t order[2];
    memcpy(order, &word, sizeof word);
    return get16(order);
}

static uint32_t complement(uint64_t number) { return (uint32_t)((0xffff - number % 0xffff) % 0xffff); }

/* The pseudo header without length and protocol.  The packet is at least as long as its IP header. */
static uint32_t pseudo(octets packet) { return packet[0] >> 4 == 4 ? sum(packet + 12, 8) : sum(packet + 8, 32); }

/* Turn the copy of an IP header of `size` octets into that of segment `number`, with `length` octets behind it. */
static void number_header(uint8_t *header, size_t size, size_t number, size_t length)
{
    if (header[0] >> 4 == 6) {
        put16(header + 4, (uint32_t)(size - IPV6 + length));
        return;
    }
    put16(header + 2, (uint32_t)(size + length));
    put16(header + 4, get16(header + 4) + (uint32_t)number);
    put16(header + 10, 0);
    put16(header + 10, complement(sum(header, size)));
}

/* ---- segment ---- */

typedef struct {
    octets packet;
    size_t length;
    unsigned protocol;
    size_t transport, payload; /* Where the TCP or UDP header starts, and what follows it: payload < length. */
    size_t gso_size;           /* Not 0; payload + gso_size <= MAX_DATAGRAM. */
} Super;

typedef struct {
    uint8_t flags, gso_type;
    uint16_t header_size, gso_size, checksum_start, checksum_offset;
} Virtio;
_Static_assert(sizeof(Virtio) == VNET, "struct virtio_net_hdr has no padding");

/* Where the transport header starts, 0 if there is none.  length >= IPV4. */
static size_t find_transport(octets packet, size_t length, unsigned protocol, const Virtio *virtio)
{
    int partial = virtio->flags & NEEDS_CHECKSUM;
    if (packet[0] >> 4 == 4) {
        size_t size = (packet[0] & 15) * 4;
        if (size < IPV4 || get16(packet + 2) != length || get16(packet + 6) & FRAGMENT || packet[9] != protocol)
            return 0;
        return !partial || virtio->checksum_start == size ? size : 0;
    }
    if (packet[0] >> 4 != 6 || length < IPV6 || IPV6 + get16(packet + 4) != length)
        return 0;
    size_t start = partial ? virtio->checksum_start : IPV6;
    return start > IPV6 || (start == IPV6 && packet[6] == protocol) ? start : 0;
}

/* Fill in `super`; 0 if the packet cannot be cut as `virtio` demands.  length >= IPV4. */
static int read_super(Super *super, octets packet, size_t length, const Virtio *virtio)
{
    unsigned kind = virtio->gso_type & ~GSO_ECN, version = packet[0] >> 4;
    if (!(kind == GSO_TCPV4 && version == 4) && !(kind == GSO_TCPV6 && version == 6) && kind != GSO_UDP)
        return 0;
    unsigned protocol = kind == GSO_UDP ? PROTOCOL_UDP : PROTOCOL_TCP;
    size_t transport = find_transport(packet, length, protocol, virtio), size = UDP;
    if (!virtio->gso_size || !transport)
        return 0;
    if (protocol == PROTOCOL_TCP) {
        if (transport + TCP > length)
            return 0;
        size = (packet[transport + 12] >> 4) * 4;
        if (size < TCP)
            return 0;
    }
    if (transport + size >= length || transport + size + virtio->gso_size > MAX_DATAGRAM)
        return 0;
    *super = (Super){packet, length, protocol, transport, transport + size, virtio->gso_size};
    return 1;
}

/* Write segment `number` with the payload [at, at + size) to `to`, which has room for super->payload + size. */
static void write_segment(uint8_t *to, const Super *super, size_t number, size_t at, size_t size)
{
    size_t header = super->payload - super->transport;
    uint8_t *transport = to + super->transport;
    memcpy(to, super->packet, super->payload);
    memcpy(to + super->payload, super->packet + at, size);
    number_header(to, super->transport, number, header + size);
    uint64_t words = (uint64_t)pseudo(to) + super->protocol + header + size + sum(super->packet + at, size);
    if (super->protocol == PROTOCOL_UDP) {
        put16(transport + 4, (uint32_t)(header + size));
        put16(transport + 6, 0);
        uint32_t field = complement(words + sum(transport, header));
        put16(transport + 6, field ? field : 0xffff);
        return;
    }
    put32(transport + 4, get32(transport + 4) + (uint32_t)(number * super->gso_size));
    if (number > 0)
        transport[13] &= (uint8_t)~CWR;
    if (at + size < super->length)
        transport[13] &= (uint8_t)~(FIN | PSH);
    put16(transport + 16, 0);
    put16(transport + 16, complement(words + sum(transport, header)));
}

static int append_run(PyObject *runs, PyObject *payload, size_t size)
{
    PyObject *run = payload ? Py_BuildValue("(Nn)", payload, (Py_ssize_t)size) : NULL;
    int failed = !run || PyList_Append(runs, run) < 0;
    Py_XDECREF(run);
    return failed ? -1 : 0;
}

static int append_super(PyObject *runs, const Super *super)
{
    size_t size = super->payload + super->gso_size, most = MAX_DATAGRAM / size, number = 0, at = super->payload;
    if (most > MOST_SEGMENTS)
        most = MOST_SEGMENTS;
    while (at < super->length) {
        size_t rest = super->length - at, count = (rest + super->gso_size - 1) / super->gso_size;
        if (count > most) {
            count = most;
            rest = count * super->gso_size;
        }
        PyObject *payload = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count * super->payload + rest));
        if (!payload)
            return -1;
        uint8_t *to = (uint8_t *)PyBytes_AsString(payload);
        for (size_t end = at + rest; at < end; number++) {
            size_t part = end - at < super->gso_size ? end - at : super->gso_size;
            write_segment(to, super, number, at, part);
            to += super->payload + part;
            at += part;
        }
        size_t length = count * super->payload + rest;
        if (append_run(runs, payload, length < size ? length : size) < 0)
            return -1;
    }
    return 0;
}

/* length >= IPV4. */
static int append_single(PyObject *runs, octets packet, size_t length, const Virtio *virtio)
{
    size_t start = virtio->checksum_start, at = start + virtio->checksum_offset;
    int partial = virtio->flags & NEEDS_CHECKSUM;
    if (partial && at + 2 > length)
        return 0;
    PyObject *payload = PyBytes_FromStringAndSize((const char *)packet, (Py_ssize_t)length);
    if (payload && partial) {
        uint32_t words = sum(packet + start, length - start);
        put16((uint8_t *)PyBytes_AsString(payload) + at, words == 0xffff ? 0xffff : 0xffff - words);
    }
    return append_run(runs, payload, length);
}

static PyObject *segment(PyObject *module, PyObject *argument)
{
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(argument, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *runs = PyList_New(0);
    int failed = !runs;
    if (!failed && view.len >= VNET + IPV4) {
        Virtio virtio;
        memcpy(&virtio, view.buf, sizeof virtio);
        octets packet = (octets)view.buf + VNET;
        size_t length = (size_t)view.len - VNET;
        Super super;
        if (!virtio.gso_type)
            failed = append_single(runs, packet, length, &virtio) < 0;
        else if (read_super(&super, packet, length, &virtio))
            failed = append_super(runs, &super) < 0;
    }
    PyBuffer_Release(&view);
    if (failed)
        Py_CLEAR(runs);
    return runs;
}

/* ---- coalesce ---- */

/* The first segment of what may become a run. */
typedef struct {
    octets packet;
    size_t size;              /* Of each segment but the last. */
    size_t transport, header; /* transport + TCP <= header < size. */
} Head;

/* 0 if nothing may be added to the packet, which is there in full. */
static int read_head(Head *head, octets packet, size_t size)
{
    unsigned version = packet[0] >> 4;
    size_t transport = version == 4 ? IPV4 : IPV6;
    if ((version != 4 && version != 6) || size < transport + TCP || size > MAX_PACKET)
        return 0;
    if (version == 4) {
        uint8_t expected[IPV4];
        if (packet[0] != 0x45 || get16(packet + 6) & FRAGMENT || packet[9] != PROTOCOL_TCP)
            return 0;
        memcpy(expected, packet, IPV4);
        number_header(expected, IPV4, 0, size - IPV4);
        if (memcmp(expected, packet, IPV4))
            return 0;
    } else if (packet[6] != PROTOCOL_TCP || get16(packet + 4) + IPV6 != size) {
        return 0;
    }
    size_t header = transport + (packet[transport + 12] >> 4) * 4;
    if (header < transport + TCP || header >= size || (packet[transport + 13] & (ALONE | ACK)) != ACK)
        return 0;
    *head = (Head){packet, size, transport, header};
    return 1;
}

/* Whether `packet` is segment `number`.  head->header < length <= head->size, and length octets are there. */
static int follows(const Head *head, octets packet, size_t length, size_t number)
{
    uint8_t expected[IPV6];
    memcpy(expected, head->packet, head->transport);
    number_header(expected, head->transport, number, length - head->transport);
    octets first = head->packet + head->transport, tcp = packet + head->transport;
    size_t skipped = number * (head->size - head->header);
    return !memcmp(packet, expected, head->transport) && !memcmp(tcp, first, 4) &&
           get32(tcp + 4) == (uint32_t)(get32(first + 4) + skipped) && !memcmp(tcp + 8, first + 8, 5) &&
           (tcp[13] & ~PSH) == first[13] && !memcmp(tcp + 14, first + 14, 2) &&
           !memcmp(tcp + 18, first + 18, head->header - head->transport - 18);
}

/* How many of the `available` octets at head->packet are a run: more than head->size of them. */
static size_t measure(const Head *head, size_t available)
{
    size_t payload = head->size - head->header, end = head->size;
    for (size_t number = 1; end < available; number++) {
        size_t length = available - end < head->size ? available - end : head->size;
        if (length <= head->header || length + number * payload > MAX_PACKET ||
            !follows(head, head->packet + end, length, number))
            break;
        int pushed = head->packet[end + head->transport + 13] & PSH;
        end += length;
        if (pushed)
            break;
    }
    return end;
}

/* Whether the TCP checksums of the run of `total` octets, taken together, are right. */
static int is_sound(const Head *head, size_t total)
{
    uint64_t words = 0;
    for (size_t at = 0; at < total; at += head->size) {
        size_t length = total - at < head->size ? total - at : head->size;
        words += (uint64_t)pseudo(head->packet) + PROTOCOL_TCP + (length - head->transport) +
                 sum(head->packet + at + head->transport, length - head->transport);
    }
    return words % 0xffff == 0;
}

static int append_frame(PyObject *frames, PyObject *frame)
{
    int failed = !frame || PyList_Append(frames, frame) < 0;
    Py_XDECREF(frame);
    return failed ? -1 : 0;
}

/* All segments of the run in one frame. */
static int append_merged(PyObject *frames, const Head *head, size_t total)
{
    size_t count = (total + head->size - 1) / head->size, last = (count - 1) * head->size;
    size_t length = total - (count - 1) * head->header, transport = head->transport;
    PyObject *frame = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(VNET + length));
    if (!frame)
        return -1;
    uint8_t *to = (uint8_t *)PyByteArray_AsString(frame);
    Virtio virtio = {
        NEEDS_CHECKSUM,      transport == IPV4 ? GSO_TCPV4 : GSO_TCPV6,  (uint16_t)head->header,
        (uint16_t)(head->size - head->header), (uint16_t)transport, 16,
    };
    memcpy(to, &virtio, VNET);
    to += VNET;
    memcpy(to, head->packet, head->header);
    number_header(to, transport, 0, length - transport);
    to[transport + 13] = head->packet[last + transport + 13];
    uint32_t partial = (pseudo(to) + PROTOCOL_TCP + (uint32_t)(length - transport)) % 0xffff;
    put16(to + transport + 16, partial ? partial : 0xffff);
    to += head->header;
    for (size_t at = 0; at < total; at += head->size) {
        size_t part = (total - at < head->size ? total - at : head->size) - head->header;
        memcpy(to, head->packet + at + head->header, part);
        to += part;
    }
    return append_frame(frames, frame);
}

static int append_each(PyObject *frames, octets data, size_t total, size_t size)
{
    for (size_t at = 0; at < total; at += size) {
        size_t length = total - at < size ? total - at : size;
        PyObject *frame = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(VNET + length));
        if (frame) {
            uint8_t *to = (uint8_t *)PyByteArray_AsString(frame);
            memset(to, 0, VNET);
            memcpy(to + VNET, data + at, length);
        }
        if (append_frame(frames, frame) < 0)
            return -1;
    }
    return 0;
}

static PyObject *coalesce(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer view;
    Py_ssize_t wanted;
    if (!PyArg_ParseTuple(arguments, "y*n:coalesce", &view, &wanted))
        return NULL;
    PyObject *frames = PyList_New(0);
    int failed = !frames;
    size_t length = (size_t)view.len, size = wanted > 0 ? (size_t)wanted : length;
    octets data = view.buf;
    for (size_t at = 0; !failed && at < length;) {
        size_t rest = length - at, total = rest < size ? rest : size;
        Head head = {0};
        if (rest > size && read_head(&head, data + at, size))
            total = measure(&head, rest);
        failed = (total > size && is_sound(&head, total) ? append_merged(frames, &head, total)
                                                          : append_each(frames, data + at, total, size)) < 0;
        at += total;
    }
    PyBuffer_Release(&view);
    if (failed)
        Py_CLEAR(frames);
    return frames;
}

/* ---- checksum ---- */

static PyObject *checksum(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer view;
    PyObject *start_object = NULL;
    if (!PyArg_ParseTuple(arguments, "y*|O!:checksum", &view, &PyLong_Type, &start_object))
        return NULL;
    unsigned long long start = start_object ? PyLong_AsUnsignedLongLong(start_object) : 0;
    PyObject *result = NULL;
    if (!PyErr_Occurred()) {
        uint32_t words = sum(view.buf, (size_t)view.len), rest = (uint32_t)((words + start % 0xffff) % 0xffff);
        result = PyLong_FromLong(0xffff - (rest ? rest : words || start ? 0xffff : 0));
    }
    PyBuffer_Release(&view);
    return result;
}

static PyMethodDef functions[] = {
    {"checksum", checksum, METH_VARARGS, "As pyflannel.tunnel.checksums.checksum."},
    {"segment", segment, METH_O, "As pyflannel.tunnel.segments.segment."},
    {"coalesce", coalesce, METH_VARARGS, "As pyflannel.tunnel.runs.coalesce."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_fast",
    .m_doc = "The functions of the tunnel that touch every octet.",
    .m_size = 0,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__fast(void) { return PyModule_Create(&definition); }
