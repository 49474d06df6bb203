//! Describes the machine a table was measured on, and reads what Linux knows of a process's memory.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// One line: processors, memory, kernel and compiler, as far as the system tells.
pub(crate) fn describe() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut parts = processors(&read("/proc/cpuinfo"));
    if let Some(kib) = field(&read("/proc/meminfo"), "MemTotal") {
        parts.push(format!("{} GiB of memory", (kib + (1 << 19)) >> 20));
    }
    let kernel = read("/proc/sys/kernel/osrelease");
    if !kernel.trim().is_empty() {
        parts.push(format!("Linux {}", kernel.trim()));
    }
    let compiler = std::process::Command::new("rustc").arg("--version").output();
    if let Ok(output) = compiler {
        parts.push(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

/// Counts the processors by model, for instance `2 × Intel(R) Xeon(R) Processor`.
fn processors(cpuinfo: &str) -> Vec<String> {
    let mut models: BTreeMap<&str, usize> = BTreeMap::new();
    for line in cpuinfo.lines() {
        if let Some((key, model)) = line.split_once(':')
            && key.trim() == "model name"
        {
            *models.entry(model.trim()).or_default() += 1;
        }
    }
    models.into_iter().map(|(model, count)| format!("{count} × {model}")).collect()
}

/// The most memory that was resident in this process so far, in bytes.
///
/// # Errors
/// The system has no `/proc/self/status`, or it lacks the field.
pub(crate) fn peak_resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let kib = field(&status, "VmHWM").context("/proc/self/status has no VmHWM")?;
    Ok(kib * 1024)
}

/// The number behind `name:` in a file of `/proc`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_models_are_found() {
        assert_eq!(field("VmPeak:\t 7 kB\nVmHWM:\t  12 kB\n", "VmHWM"), Some(12));
        assert_eq!(field("VmPeak:\t 7 kB\n", "VmHWM"), None);
        let cpuinfo = "processor\t: 0\nmodel name\t: A\nprocessor\t: 1\nmodel name\t: A\n";
        assert_eq!(processors(cpuinfo), ["2 × A"]);
    }
}
