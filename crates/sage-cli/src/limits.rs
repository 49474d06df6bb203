//! What a program may take, as options.

use std::time::Duration;

use sage_api::job::Limits;

/// Limits. What is not given is not limited.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LimitArgs {
    /// End it when it takes more memory, such as 512M or 2G
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,

    /// Let it have so many processes and threads at most
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    processes: Option<u64>,

    /// End it when it has used processors for longer, such as 90s or 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    cpu: Option<Duration>,

    /// Cancel it when it takes longer, such as 90s or 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
}

impl LimitArgs {
    pub(crate) fn limits(&self) -> Limits {
        let ms = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Limits { memory_bytes: self.memory, processes: self.processes, cpu_ms: ms(self.cpu), time_ms: ms(self.time) }
    }
}

/// The least memory that a program starts with.
const LEAST_MEMORY: u64 = 1 << 20;

fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not an amount of memory: give bytes, or a number with K, M, G or T");
    let digits = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let shift = match unit.trim().to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    if bytes < LEAST_MEMORY {
        return Err(format!("{text} of memory is too little for any program: give 1M or more"));
    }
    Ok(bytes)
}

pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let wrong = |_| format!("`{text}` is not a time: give a number with ms, s, m or h, such as 90s");
    let time = humantime::parse_duration(text).map_err(wrong)?;
    if time < Duration::from_millis(1) {
        return Err("no time is too little for any program".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_memory_are_read_as_people_write_them() {
        let read = ["1048576", "512M", "2G", "2GiB", "4 mb"].map(|text| bytes(text).unwrap());
        assert_eq!(read, [1 << 20, 512 << 20, 2 << 30, 2 << 30, 4 << 20]);
        for wrong in ["", "M", "-1", "1.5G", "12Q", "99999999999999999999", "99999999T", "10"] {
            assert!(bytes(wrong).unwrap_err().contains("memory"), "{wrong}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("1h 30m").unwrap(), Duration::from_secs(5400));
        for wrong in ["", "5", "-1s", "soon", "0s"] {
            assert!(time(wrong).unwrap_err().contains("time"), "{wrong}");
        }
    }
}
