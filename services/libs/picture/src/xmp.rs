//! The XMP part: the maker's word on attitude and height, as attributes or as elements.

use roxmltree::{Document, Node, ParsingOptions};

use crate::Header;

pub(crate) const DRONE_DJI: &str = "http://www.dji.com/drone-dji/1.0/";
/// Nodes of one packet; makers write a few dozen. Beyond it the packet counts as damaged.
const MAX_NODES: u32 = 10_000;
/// Attributes of one packet, which the parser compares with each other; beyond it the packet counts as
/// damaged. Makers write a few dozen, editors a few hundred.
pub(crate) const MAX_ATTRIBUTES: usize = 2_000;
/// A number beyond a whole turn is no angle, degrees: some makers write a filler where they know none.
const MAX_ANGLE_DEG: f64 = 360.0;

/// Reads a packet into `header`; what is damaged is noted there.
pub(crate) fn read(packet: &[u8], header: &mut Header) {
    // Each attribute has an equals sign, and little else has.
    let text = xmpmeta(packet)
        .filter(|text| text.bytes().filter(|&b| b == b'=').count() <= MAX_ATTRIBUTES);
    let options = ParsingOptions {
        nodes_limit: MAX_NODES,
        ..ParsingOptions::default()
    };
    let document = text.and_then(|text| Document::parse_with_options(text, options).ok());
    let Some(document) = document else {
        header.damaged.push("xmp");
        return;
    };
    for node in document.descendants().filter(Node::is_element) {
        for attribute in node.attributes() {
            if attribute.namespace() == Some(DRONE_DJI) {
                read_property(attribute.name(), attribute.value(), header);
            }
        }
        if node.tag_name().namespace() == Some(DRONE_DJI)
            && let Some(text) = node.text()
        {
            read_property(node.tag_name().name(), text, header);
        }
    }
}

fn read_property(name: &str, text: &str, header: &mut Header) {
    let (target, limit) = match name {
        // The barometer's word is finer than the Exif rational, and the same quantity.
        "AbsoluteAltitude" => (&mut header.altitude_m, f64::MAX),
        "RelativeAltitude" => (&mut header.relative_altitude_m, f64::MAX),
        "GimbalRollDegree" => (&mut header.gimbal.roll_deg, MAX_ANGLE_DEG),
        "GimbalPitchDegree" => (&mut header.gimbal.pitch_deg, MAX_ANGLE_DEG),
        "GimbalYawDegree" => (&mut header.gimbal.yaw_deg, MAX_ANGLE_DEG),
        "FlightRollDegree" => (&mut header.flight.roll_deg, MAX_ANGLE_DEG),
        "FlightPitchDegree" => (&mut header.flight.pitch_deg, MAX_ANGLE_DEG),
        "FlightYawDegree" => (&mut header.flight.yaw_deg, MAX_ANGLE_DEG),
        _ => return,
    };
    // Rust parses the leading plus that makers write.
    match text.trim().parse::<f64>() {
        Ok(value) if value.abs() <= limit => *target = Some(value),
        Ok(_) | Err(_) => header.damaged.push("xmp"),
    }
}

/// The XML inside a packet: packets carry a prolog, padding and sometimes stray bytes around it.
fn xmpmeta(packet: &[u8]) -> Option<&str> {
    const END: &[u8] = b"</x:xmpmeta>";
    let start = memchr::memmem::find(packet, b"<x:xmpmeta")?;
    let end = memchr::memmem::find(packet, END)? + END.len();
    std::str::from_utf8(packet.get(start..end)?).ok()
}
